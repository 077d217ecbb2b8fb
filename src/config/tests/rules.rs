//! Rules between settings.

use super::*;

#[test]
fn tls_or_plaintext_must_be_chosen() {
    let faults = read_with("", &[]).unwrap_err();
    assert!(faults.0[0].message.starts_with("`listen.tls`: neither TLS nor plain HTTP is asked for"));
    // Without a [listen] it is said of the user's file, and not of the defaults, which nobody can edit.
    for (text, variable, place) in [
        ("[keys]\nfile = \"k\"\n", "X", "keyside.toml: `listen.tls`"),
        ("preset = \"wontopos\"\n", "X", "keyside.toml: `listen.tls`"),
        ("", "KEYSIDE_LISTEN__MAX_BODY", "keyside.toml: `listen.tls`"),
        ("[listen]\n", "X", "keyside.toml:1:2: `listen.tls`"),
    ] {
        let faults = read_with(text, &[(variable, "1KiB")]).unwrap_err().to_string();
        assert!(faults.starts_with(place), "{text}: {faults}");
    }
    let tls = "[listen.tls]\ncertificate = \"a\"\nprivate_key = \"b\"\n";
    let both = read_with(&format!("[listen]\nplaintext = true\n{tls}"), &[]).unwrap_err();
    assert_eq!(
        compact(&both.0),
        ["2:13 `listen.plaintext`: both plain HTTP and [listen.tls] are asked for; choose one"]
    );
    let one = read_with("[listen.tls]\ncertificate = \"a\"\n", &[]).unwrap_err();
    assert_eq!(compact(&one.0), ["1:9 `listen.tls.private_key`: is missing: the certificate needs it"]);
    for nothing in ["[listen.tls]\n", "[listen.tls]\nclient_ca = \"c\"\n", "[listen.tls]\ncertificate = \"\"\n"] {
        let faults = read_with(nothing, &[]).unwrap_err().0;
        assert_eq!(faults.len(), 1, "a section without a certificate is never plain HTTP: {faults:?}");
        assert!(faults[0].message.ends_with("`listen.tls.certificate`: is missing"), "{faults:?}");
    }
    let config = read_with(tls, &[]).unwrap().config;
    assert_eq!(config.listener.tls.unwrap().private_key, Path::new("b"));
}

#[test]
fn settings_that_contradict_one_another_are_errors() {
    check(
        "[listen]\nplaintext = true\nproxy_protocol = true\n",
        &[
            "3:18 `listen.proxy_protocol`: a PROXY header is taken from trusted_proxies only, and there are none, so that \
         nobody could connect",
        ],
    );
    check(
        "[admin]\naddress = \"127.0.0.1:8443\"\n",
        &["2:11 `admin.address`: 127.0.0.1:8443 is the address of `listen.address` already"],
    );
    check(
        "[upstream]\nurl = \"http://localhost:8443\"\n",
        &["2:7 `upstream.url`: http://localhost:8443 is where Keyside itself listens (127.0.0.1:8443)"],
    );
    check(
        "[policy.methods]\nwrite = [\"POST\", \"GET\"]\n",
        &["2:9 `policy.methods.write`: GET is in `read` already; a method is in one list, once"],
    );
    check(
        "[policy.methods]\npass = [\"TRACE\", \"get\"]\n",
        &[
            "2:9 `policy.methods.pass`: CONNECT and TRACE are never forwarded",
            "2:18 `policy.methods.pass`: methods are written in capitals (did you mean \"GET\"?)",
        ],
    );
    check(
        "[credentials]\nbasic = false\nbearer = false\n",
        &["2:9 `credentials.basic`: no kind of credential is switched on, so that no key could ever be presented"],
    );
    check("[credentials]\nquery = { key = \"k\" }\n", &["2:1 `credentials.query.secret`: is missing"]);
    check(
        "[owner_headers]\nowner = \"X-Key-ID\"\n",
        &["2:9 `owner_headers.owner`: an upstream cannot tell it from `key_id`"],
    );
    check(
        "[owner_headers]\nreserved_prefix = \"Content-\"\n",
        &["2:19 `owner_headers.reserved_prefix`: content-encoding begins with it too, and would be removed"],
    );
    check(
        "[[route]]\npath = \"/a\"\npublic = true\nscope = \"read\"\nkyc = true\n",
        &[
            "4:9 `route[0].scope`: a public route asks for no key, so it cannot ask for this",
            "5:7 `route[0].kyc`: a public route asks for no key, so it cannot ask for this",
        ],
    );
    // What the later one asks for is asked for nowhere.
    check(
        "[[route]]\npath = \"/v1/**\"\nscope = \"a:read\"\n\
         [[route]]\npath = \"/v1/keys\"\nscope = \"keys:manage\"\nkyc = true\n",
        &[
            "5:8 warning: route 2 can never match: route 1 \"/v1/**\" (keyside.toml:1), which comes before it, covers all \
         that it covers, and does not ask for the scope keys:manage and an approved KYC",
        ],
    );
    check(
        "[policy]\neffective_path_prefix = \"/wp-json/\"\nfront_controllers = [\"/\", \"/a/../b\", \"index.php\", \"/a/\", \"/a//\"]\n",
        &[
            "2:25 `policy.effective_path_prefix`: expected \"\", or a path such as \"/wp-json\", without a final slash",
            "3:27 `policy.front_controllers`: expected a path such as \"/\", \"/shop/\" or \"/index.php\"",
            "3:38 `policy.front_controllers`: expected a path such as \"/\", \"/shop/\" or \"/index.php\"",
            "3:58 `policy.front_controllers`: expected a path such as \"/\", \"/shop/\" or \"/index.php\"",
        ],
    );
    check("[[route]]\nscope = \"read\"\n", &["1:1 `route[0].path`: is missing"]);
    check(
        "[keys.mint]\ntoken = { test = \"ck_live_\" }\n",
        &["2:1 `keys.mint.token`: live and test tokens begin alike; nobody could tell them apart"],
    );
    check(
        "[hosts]\n\"API.example.com\" = \"live\"\n\"api.example.com:443\" = \"live\"\n",
        &["3:1 `hosts.\"api.example.com:443\"`: hosts are given without port; did you mean \"api.example.com\"?"],
    );
}

#[test]
fn odd_names_may_not_fold_onto_what_is_ours() {
    #[track_caller]
    fn refused(name: &str, extra: &str) {
        let text = plain(&format!("{extra}\n[policy]\npass_field_names = [\"client_id\", \"{name}\"]\n"));
        let faults = read_with(&text, &[]).unwrap_err().0;
        assert_eq!(faults.len(), 1, "{faults:?}");
        assert!(faults[0].message.contains("which no client may write"), "{faults:?}");
        assert_eq!(faults[0].column, 34, "at its own place");
    }
    good("[policy]\npass_field_names = [\"client_id\"]\n");
    refused("x_key_id", "");
    refused("x_key_anything", "");
    refused("X_Forwarded_For", "");
    refused("x.request.id", "");
    refused("x_api_key", "[credentials]\nheader = \"X-API-Key\"");
    refused("x_http_method_override", "");
    refused("my_owner", "[owner_headers]\nowner = \"My-Owner\"");
    refused("content_length", "");
}

#[test]
fn what_can_never_take_effect_is_warned_of() {
    check(
        "[limits]\nper_ip = [\"600/1m\", \"30/5s\"]\n",
        &["2:11 warning: `limits.per_ip`: 600/1m can never be reached, since 30/5s is used up first"],
    );
    check(
        "[limits]\nper_key = [\"600/1m\"]\nper_owner = [\"100/1m\"]\n",
        &[
            "2:12 warning: `limits.per_key`: 600/1m can never be reached, since 100/1m of `limits.per_owner` is used up first",
        ],
    );
    check(
        "[[route]]\npath = \"/v1/**\"\n[[route]]\npath = \"/v1/keys\"\nmethods = [\"GET\"]\n",
        &[
            "4:8 warning: route 2 can never match: route 1 \"/v1/**\" (keyside.toml:1), which comes before it, covers all \
         that it covers",
        ],
    );
    check(
        "[policy]\neffective_path_prefix = \"/wp-json\"\n",
        &["2:25 warning: `policy.effective_path_prefix` has no effect without `effective_path_parameter`"],
    );
    check(
        "[keys]\nmax_stale = \"1h\"\n",
        &["2:13 warning: `keys.max_stale_write` can never take effect: `max_stale` is shorter"],
    );
    check(
        "[upstream]\ntls = { ca = \"a\" }\n",
        &["2:1 warning: `upstream.tls` has no effect: no upstream's url begins with https"],
    );
    check(
        "[listen]\nplaintext = true\naddress = \"127.0.0.1:1\"\nclient_ip_header = \"Forwarded\"\n",
        &["4:20 warning: `listen.client_ip_header` is never read: there are no trusted_proxies"],
    );
}

#[test]
fn routes_behind_a_front_controller_are_warned_of() {
    let judged = |controllers: &str, path: &str| {
        format!("[policy]\nfront_controllers = {controllers}\n[[route]]\npath = \"{path}\"\n")
    };
    let (root, shop) = (r#"["/", "/index.php"]"#, r#"["/shop/", "/shop/index.php"]"#);
    let warning = |controller: &str, instead: &str| {
        format!(
            "4:8 warning: route 1 will not match: a path behind the front controller {controller} is judged as what \
             follows it (path = \"{instead}\")"
        )
    };
    check(&judged(root, "/index.php/wp-json/x"), &[&warning("/index.php", "/wp-json/x")]);
    check(&judged(root, "/index.php/"), &[&warning("/index.php", "/")]);
    check(&judged(shop, "/shop/index.php/{id}/**"), &[&warning("/shop/index.php", "/shop/{id}/**")]);
    for (controllers, path) in [
        (root, "/index.php"),
        (root, "/index.php/**"),
        (root, "/index.php/x/index.php"),
        (root, "/index.phps/x"),
        (root, "/wp-json/x"),
        (shop, "/shop/x"),
    ] {
        check(&judged(controllers, path), &[]);
    }
    check(&judged("[]", "/index.php/x"), &[]);
}

#[test]
fn limits_by_address_on_a_public_address_are_warned_of() {
    let text = |more: &str| format!("[listen]\nplaintext = true\n{more}\n[limits]\nper_ip = [\"60/1m\"]\n");
    let warnings = read_with(&text("address = \"0.0.0.0:8443\""), &[]).unwrap().warnings;
    assert_eq!(warnings.len(), 1, "{warnings:?}");
    assert!(warnings[0].message.contains("behind a balancer all callers share one limit"));
    check(&text("address = \"[::1]:8443\""), &[]);
    check(&text("trusted_proxies = [\"10.0.0.0/8\"]"), &[]);
}
