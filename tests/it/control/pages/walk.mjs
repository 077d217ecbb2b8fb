// A walk through the admin pages with a real browser: from the link of the first start to a key that is deleted. Started
// by walks.rs: node walk.mjs WAY LINK CHROMIUM PICTURES PACKAGES [rules]. WAY is "script", "plain" (no script runs in the
// browser), "keyboard" (nothing but keys is pressed) or "tls" (in and out over TLS, where RULES is the file of the server's
// certificate). With "rules", each page is held against axe's.
import { execFileSync } from "node:child_process";
import { X509Certificate, createHash } from "node:crypto";
import { createServer } from "node:http";
import { mkdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";

const [way, link, executablePath, pictures, packages, rules] = process.argv.slice(2);
// Longer than a walk takes on a machine that does ten other things.
setTimeout(() => { console.error(`${way}: not done in time, at ${page.url()}`); process.exit(1); }, 280000).unref();
const require = createRequire(packages + "/");
const { chromium } = require("playwright-core");
const axe = readFileSync(require.resolve("axe-core/axe.min.js"), "utf8");
const base = new URL(link).origin;
mkdirSync(pictures, { recursive: true });

// Root's browser has no sandbox; all pages that it sees are ours.
const args = ["--no-sandbox", "--disable-gpu"];
if (way === "tls") {
  // This very key, and no other, is trusted.
  const key = new X509Certificate(readFileSync(rules)).publicKey.export({ type: "spki", format: "der" });
  args.push(`--ignore-certificate-errors-spki-list=${createHash("sha256").update(key).digest("base64")}`);
}
const browser = await chromium.launch({ executablePath, args });
const context = await browser.newContext({
  javaScriptEnabled: way !== "plain",
  permissions: way === "plain" ? [] : ["clipboard-read", "clipboard-write"],
});
const page = await context.newPage();
page.setDefaultTimeout(20000);
const faults = [];
page.on("pageerror", (error) => faults.push(`error in a script: ${error.message}`));
page.on("console", (said) => { if (/Content Security Policy|Refused to/.test(said.text())) faults.push(said.text()); });
page.on("dialog", (dialog) => { faults.push(`a dialog: ${dialog.message()}`); dialog.dismiss().catch(() => {}); });

const check = (what, is) => { if (!is) throw new Error(`${way}: ${what}, at ${page.url()}`); };
let number = 0;

// Pictures, and the rules for accessible pages: in both themes, wide and at 320 pixels.
async function look(name) {
  number += 1;
  const picture = (more) => `${pictures}/${String(number).padStart(2, "0")}-${name}${more}.png`;
  await page.screenshot({ path: picture(""), fullPage: true });
  if (rules !== "rules") return;
  for (const colorScheme of ["light", "dark"]) {
    for (const width of [1280, 320]) {
      await page.emulateMedia({ colorScheme });
      await page.setViewportSize({ width, height: 800 });
      await page.evaluate(axe);
      const { violations } = await page.evaluate(() => axe.run(document, {
        resultTypes: ["violations"],
        runOnly: ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
      }));
      for (const { id, nodes } of violations) {
        faults.push(`${name}, ${colorScheme}, ${width}: ${id}: ${nodes.map((node) => node.target).join(" ")}`);
      }
      const wide = await page.evaluate(() => document.documentElement.scrollWidth - document.documentElement.clientWidth);
      if (wide > 0) faults.push(`${name}, ${width}: ${wide} pixels too wide`);
      if (colorScheme === "dark") await page.screenshot({ path: picture(`-dark-${width}`), fullPage: true });
    }
  }
  await page.emulateMedia({ colorScheme: "light" });
  await page.setViewportSize({ width: 1280, height: 800 });
}

// Goes to what is to be used, by Tab alone, and checks that it shows where one is.
async function reach(locator) {
  const wanted = await locator.first().elementHandle();
  for (let presses = 0; presses < 150; presses += 1) {
    if (await wanted.evaluate((element) => element === document.activeElement)) {
      const outline = await wanted.evaluate((element) => getComputedStyle(element).outlineStyle);
      check("the focus is seen", outline !== "none");
      return;
    }
    await page.keyboard.press("Tab");
  }
  throw new Error(`no key leads to ${locator}, at ${page.url()}`);
}

async function type(selector, text) {
  const field = page.locator(selector);
  if (way !== "keyboard") return field.fill(text);
  await reach(field);
  await page.keyboard.press("Control+A");
  await page.keyboard.type(text);
}

// Follows a link or presses a button, and waits for the page behind it.
async function use(locator) {
  if (way !== "keyboard") return locator.first().click();
  await reach(locator);
  await Promise.all([page.waitForNavigation(), page.keyboard.press("Enter")]);
}

const button = (name) => page.getByRole("button", { name, exact: true });
const toLink = (name) => page.getByRole("link", { name, exact: true });
const heading = async (text) => {
  await page.waitForLoadState();
  check(`the heading "${text}"`, (await page.getByRole("heading", { level: 1 }).innerText()) === text);
};

// The line that the page prints, as a person pastes it; what it is answered.
function curl(line) {
  const quiet = line.replace(/^curl /, "curl --noproxy '*' -s -o /dev/null -w '%{http_code}' ");
  return execFileSync("sh", ["-c", quiet], { encoding: "utf8" });
}
async function answers(line, status) {
  let found;
  for (let times = 0; times < 200; times += 1) {
    found = curl(line);
    if (found === status) return;
    await new Promise((done) => setTimeout(done, 50));
  }
  throw new Error(`${way}: answered ${found} and not ${status}`);
}

// A page at another port: to the browser it is the same site, so that the cookie goes along; even with the secret of the
// session it gets nothing.
async function fromAnotherSite() {
  const csrf = await page.locator("input[name=csrf]").first().inputValue();
  const form = `<form method="post" action="${base}/owners/new"><input name="csrf" value="${csrf}"><input name="id" ` +
    `value="forged"><input name="kyc" value="none"><button>Win a prize</button></form><iframe src="${base}/keys"></iframe>`;
  const other = createServer((_, answer) => {
    answer.setHeader("Content-Type", "text/html");
    answer.end(form);
  });
  await new Promise((done) => other.listen(0, "127.0.0.1", done));
  const there = `http://127.0.0.1:${other.address().port}/`;
  await page.goto(there);
  const framed = await page.frames()[1].content().catch(() => "");
  check("no page of ours is in a frame", !framed.includes("Accounting") && !framed.includes("Sign out"));
  const read = () => page.evaluate((url) => fetch(url, { credentials: "include" }).then(() => "read", () => "refused"), `${base}/keys`);
  check("no page of ours is read", (await read()) === "refused");
  const [answer] = await Promise.all([page.waitForNavigation(), page.getByRole("button").click()]);
  // Over TLS, a page without it is another site: there the cookie does not even go along.
  check("the forged form is refused", answer.status() === (way === "tls" ? 401 : 403));
  await page.goto(`${base}/owners`);
  check("nothing was forged", !(await page.content()).includes("forged"));
  other.close();
}

// Over TLS: cookies that no other host can set or get, and forms that no page without TLS can send.
async function overTls() {
  const cookies = async () => Object.fromEntries((await context.cookies()).map((cookie) => [cookie.name, cookie]));
  const isOurs = ({ secure, httpOnly, sameSite, path, domain }) =>
    secure && httpOnly && sameSite === "Strict" && path === "/" && domain === new URL(base).hostname;
  await page.goto(link);
  check("one cookie for the form", Object.keys(await cookies()).join() === "__Host-keyside-form");
  await type("#f-name", "ada");
  await type("#f-password", "a password of the walk");
  await type("#f-again", "a password of the walk");
  await use(button("Set up and sign in"));
  await heading("Keys");
  let found = await cookies();
  check("the names of the cookies", Object.keys(found).sort().join() === "__Host-keyside,__Host-keyside-device");
  check("what the cookies say", Object.values(found).every(isOurs));
  check("the session ends with the browser", found["__Host-keyside"].expires === -1);
  check("the browser is known for longer", found["__Host-keyside-device"].expires > Date.now() / 1000 + 86400 * 100);
  check("no script reads them", (await page.evaluate(() => document.cookie)) === "");
  const device = found["__Host-keyside-device"].value;
  await use(toLink("Owners"));
  await use(toLink("New owner"));
  await type("#f-id", "svc-accounting");
  await use(button("Add the owner"));
  await heading("svc-accounting");
  await look("tls-owner");
  await fromAnotherSite();
  await page.goto(`${base}/keys`);
  await use(button("Sign out"));
  await heading("Sign in");
  check("the browser goes on to be known", (await cookies())["__Host-keyside-device"]?.value === device);
  check("the session is gone", !(await cookies())["__Host-keyside"]);
  await type("#f-name", "ada");
  await type("#f-password", "a password of the walk");
  await use(button("Sign in"));
  await heading("Keys");
  found = await cookies();
  check("it is the same browser", found["__Host-keyside-device"].value === device);
  // Without the prefix, as a page of another port can set one, even the value of this very session is not believed.
  await context.clearCookies();
  const { value } = found["__Host-keyside"];
  await context.addCookies([{ name: "keyside", value, url: base, secure: true, httpOnly: true, sameSite: "Strict" }]);
  await page.goto(`${base}/keys`);
  await heading("Sign in");
  console.log("over TLS");
}

try {
  if (way === "tls") {
    await overTls();
    await browser.close();
    process.exit(0);
  }
  // The first start.
  await page.goto(link);
  await heading("Set up the first operator");
  await look("setup");
  await type("#f-name", "ada");
  await type("#f-password", "short");
  await type("#f-again", "short");
  await use(button("Set up and sign in"));
  check("what is wrong has the focus", await page.evaluate(() => document.activeElement?.className === "summary").catch(() => true));
  await look("setup-again");
  await type("#f-password", "a password of the walk");
  await type("#f-again", "a password of the walk");
  await use(button("Set up and sign in"));
  await heading("Keys");
  await look("no-keys");
  await use(button("Sign out"));
  await heading("Sign in");
  await look("sign-in");
  await type("#f-name", "ada");
  await type("#f-password", "not the password");
  await use(button("Sign in"));
  await look("sign-in-again");
  await type("#f-password", "a password of the walk");
  await use(button("Sign in"));
  await heading("Keys");

  // Whom the key is for.
  await use(toLink("Owners"));
  await use(toLink("New owner"));
  await look("new-owner");
  await type("#f-id", "svc-accounting");
  await type("#f-name", "Accounting service account");
  await type("#f-capabilities", "administrator");
  await use(button("Add the owner"));
  await heading("svc-accounting");
  await look("owner");

  // Minting.
  await use(toLink("Keys"));
  await use(toLink("New key"));
  await look("new-key");
  await use(toLink("Read-only BI sync"));
  await type("#f-name", "Accounting export script");
  await type("#f-owner", "svc-accounting");
  if (way === "script") {
    await button("Add my address, 127.0.0.1").click();
    check("the address is there", (await page.inputValue("#f-allow_ips")) === "127.0.0.1");
    await page.getByText("This key may read for svc-accounting, from 127.0.0.1 only").waitFor();
    await page.getByText("This owner is an administrator").waitFor();
  } else {
    await use(button("Add my address, 127.0.0.1")).catch(() => {});
    if (way === "plain") await heading("New key");
    check("the address is there", (await page.inputValue("#f-allow_ips")) === "127.0.0.1");
    await use(button("Say what it will be able to do"));
    await page.getByText("This key may read for svc-accounting, from 127.0.0.1 only").waitFor();
    await page.getByText("This owner is an administrator").waitFor();
  }
  await look("new-key-filled");
  await use(button("Mint the key"));
  await heading("Copy the secret now");
  await look("made");
  const line = await page.inputValue("#v-curl");
  const secret = await page.inputValue("#v-secret");
  if (way !== "plain") {
    const copy = button("Copy the curl line");
    if (way === "keyboard") { await reach(copy); await page.keyboard.press("Enter"); } else await copy.click();
    await page.getByText("Copied.").waitFor();
    check("the line was copied", (await page.evaluate(() => navigator.clipboard.readText())) === line);
  }

  // It is used.
  await page.getByText("Waiting for the first request…").waitFor();
  await answers(line, "200");
  if (way === "plain") await use(toLink("To the key"));
  else await page.locator(".waiting.used").waitFor();
  if (way !== "plain") await use(toLink("To the key"));
  for (let times = 0; times < 60 && !(await page.getByText("In use: the last request came").count()); times += 1) {
    await new Promise((done) => setTimeout(done, 250));
    await page.reload();
  }
  await heading("Accounting export script");
  check("the secret is on no other page", !(await page.content()).includes(secret));
  await look("key");
  await use(toLink("Keys"));
  const row = page.getByRole("row").filter({ hasText: "Accounting export script" });
  check("the list says when it was used, and from where", /UTC.*127\.0\.0\.1/s.test(await row.innerText()));
  await look("keys");

  // Changing: what is wrong comes back.
  await use(toLink("Accounting export script"));
  await use(toLink("Change"));
  await look("change");
  await type("#f-limits", "as many as I like");
  await use(button("Change the key"));
  await look("change-again");
  await type("#f-limits", "600/1m");
  await use(button("Change the key"));
  await page.getByText("The key was changed.").waitFor();

  // Rotating.
  await use(toLink("Rotate"));
  await look("rotate");
  await use(button("Rotate the key"));
  await heading("Copy the secret now");
  const next = await page.inputValue("#v-curl");
  if (way !== "plain") {
    const copy = button("Copy the curl line");
    if (way === "keyboard") { await reach(copy); await page.keyboard.press("Enter"); } else await copy.click();
    await page.getByText("Copied.").waitFor();
  }
  await answers(next, "200");
  check("the old one works too", curl(line) === "200");
  await use(toLink("To the key"));
  await page.getByText("It replaces another key").waitFor();
  await look("key-new");
  await use(page.getByRole("region", { name: "It replaces another key" }).getByRole("link"));
  await page.getByText("It is being replaced").waitFor();
  await look("key-old");

  // Revoking: refused at once.
  await use(toLink("Revoke"));
  await look("revoke");
  await use(button("Revoke the key"));
  await heading("The key is revoked");
  check("401 at once", curl(line) === "401");
  check("the new one goes on working", curl(next) === "200");
  await look("receipt");

  // What was tried since is told, with what to do about it.
  await use(toLink("To the key"));
  for (let times = 0; times < 60 && !(await page.getByText("Somebody still uses this key").count()); times += 1) {
    await new Promise((done) => setTimeout(done, 250));
    await page.reload();
  }
  await page.getByText("Somebody still uses this key").waitFor();
  await look("key-revoked");

  // Deleting.
  await use(toLink("Delete"));
  await look("delete");
  await type("#f-name", "another name");
  await use(button("Delete the key"));
  await look("delete-again");
  await type("#f-name", "Accounting export script");
  await use(button("Delete the key"));
  await heading("The key is deleted");
  check("401 still", curl(line) === "401");
  await look("deleted");

  // All the rest.
  await use(toLink("Sidecars"));
  await page.getByText("connected").first().waitFor();
  await look("sidecars");
  await use(toLink("Audit"));
  await look("audit");
  await use(toLink("Operators"));
  await look("operators");
  await use(toLink("New operator"));
  await look("new-operator");
  await page.goto(`${base}/operators/ada`);
  await look("operator");
  await use(toLink("ada"));
  await look("account");
  await page.goto(`${base}/keys/nothing`);
  await look("missing");
  await page.goto(`${base}/keys/new?preset=web3pay`);
  await look("new-key-by-name");
  if (faults.length > 0) throw new Error(faults.join("\n"));
  // Last: what the browser refuses there, it says.
  if (rules === "rules") await fromAnotherSite();
  console.log(`${number} pages`);
} catch (error) {
  await page.screenshot({ path: `${pictures}/failed.png`, fullPage: true }).catch(() => {});
  console.error(error.message, "\n", faults.join("\n"));
  process.exitCode = 1;
} finally {
  await browser.close();
}
