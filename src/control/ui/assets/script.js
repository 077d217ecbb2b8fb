// What makes the pages better; all of them work without it.
"use strict";

// The summary of what is wrong gets the focus, so that it is read out.
document.querySelector("[data-focus]")?.focus();

// Copying. Where the browser has no clipboard for us, the text is selected, to be copied by hand.
const said = document.querySelector("[data-copied]");
let copied = false;
for (const button of document.querySelectorAll("[data-copy]")) {
  button.hidden = false;
  button.addEventListener("click", async () => {
    const from = document.getElementById(button.dataset.copy);
    from.select();
    try {
      await navigator.clipboard.writeText(from.value);
      copied = true;
      if (said) said.textContent = "Copied.";
    } catch {
      if (said) said.textContent = "Selected: copy it with Ctrl+C or ⌘C.";
    }
  });
}
document.addEventListener("copy", () => { copied = true; });

// A secret that is shown once is not to be left by a slip.
if (document.querySelector("[data-leave]")) {
  window.addEventListener("beforeunload", (event) => { if (!copied) event.preventDefault(); });
}

// "My address" without a way to the server and back.
for (const button of document.querySelectorAll("[data-address]")) {
  button.addEventListener("click", (event) => {
    event.preventDefault();
    const into = document.getElementById(button.dataset.into);
    const there = into.value.split(/[\s,;]+/).filter(Boolean);
    if (!there.includes(button.dataset.address)) there.push(button.dataset.address);
    into.value = there.join("\n");
    into.dispatchEvent(new Event("input", { bubbles: true }));
  });
}

// What the key will be able to do, while it is typed.
for (const form of document.querySelectorAll("[data-live]")) {
  let timer = 0;
  let asked = 0;
  const ask = async () => {
    const mine = ++asked;
    try {
      const answer = await fetch(form.dataset.live, { method: "POST", body: new URLSearchParams(new FormData(form)) });
      if (!answer.ok) return;
      const { sentence, warning } = await answer.json();
      if (mine !== asked) return;
      form.querySelector("[data-sentence]").textContent = sentence;
      const place = form.querySelector("[data-warning]");
      place.textContent = warning;
      place.hidden = !warning;
    } catch { /* The button beside it says the same. */ }
  };
  form.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(ask, 300); });
}

// The line that turns green.
for (const line of document.querySelectorAll("[data-poll]")) {
  const look = async () => {
    try {
      const answer = await fetch(line.dataset.poll);
      if (answer.redirected || !answer.ok) return;
      const { used, says } = await answer.json();
      if (line.textContent !== says) line.textContent = says;
      if (used) { line.classList.add("used"); return; }
    } catch { /* The next look may work. */ }
    setTimeout(look, document.hidden ? 10000 : 1500);
  };
  look();
}
