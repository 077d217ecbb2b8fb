//! Rules between settings: what contradicts itself, what can never take effect, and what will surprise.

use std::time::Duration;

use super::{Config, reader::Reader};
use crate::{
    fault::Fault,
    keys::secret::Algorithm,
    limits::Quota,
    policy::{Policy, RouteSettings},
    proxy::settings::{Endpoint, UpstreamUrl},
};

/// Checks what no section can know alone. `whole`: every route could be read.
pub(super) fn check(reader: &Reader<'_>, config: &Config, whole: bool) {
    addresses(reader, config);
    upstreams(reader, config);
    proxies(reader, config);
    keys(reader, config);
    limits(reader, config);
    let facts = &config.facts;
    if facts.effective_path_parameter.is_none() && !facts.effective_path_prefix.is_empty() {
        let fault = Fault::warning("`policy.effective_path_prefix` has no effect without `effective_path_parameter`");
        reader.about(&["policy.effective_path_prefix"], fault);
    }
    if whole {
        routes(reader, config);
    }
}

/// Two listeners on one address, and an upstream that is the listener itself.
fn addresses(reader: &Reader<'_>, config: &Config) {
    let listen = &config.listener.addresses;
    let mut taken: Vec<(std::net::SocketAddr, String)> = Vec::new();
    let at = |index| format!("listen.address[{index}]");
    let all = listen.iter().enumerate().map(|(index, address)| (at(index), "listen.address", Some(*address)));
    let admin = [
        ("admin.address".to_owned(), "admin.address", config.admin.address),
        ("admin.probes".to_owned(), "admin.probes", config.admin.probes),
    ];
    for (path, setting, address) in all.chain(admin) {
        let Some(address) = address.filter(|_| reader.is_good(setting)) else { continue };
        if let Some((_, other)) = taken.iter().find(|(other, _)| *other == address && address.port() != 0) {
            let fault = Fault::error(format!("`{setting}`: {address} is the address of `{other}` already"));
            reader.about(&[&path, setting], fault);
        }
        taken.push((address, setting.to_owned()));
    }
    if listen.is_empty() {
        reader.about(&["listen.address"], Fault::error("`listen.address`: no address at all"));
    }
}

fn upstreams(reader: &Reader<'_>, config: &Config) {
    let upstream = &config.upstream;
    let modes = upstream.modes.iter().map(|(mode, url)| (format!("upstream.modes.{}", mode.as_str()), url));
    let routes =
        config.policy.routes.iter().filter_map(|route| route.upstream.as_ref()?.url.parse::<UpstreamUrl>().ok());
    let routes: Vec<_> = routes.collect();
    let urls: Vec<_> = [("upstream.url".to_owned(), &upstream.url)].into_iter().chain(modes).collect();
    for (path, url) in urls.iter().filter(|(path, _)| reader.is_good(path)) {
        if let Some(own) = config.listener.addresses.iter().find(|own| is_at(url, **own)) {
            let fault = Fault::error(format!("`{path}`: {url} is where Keyside itself listens ({own})"));
            reader.about(&[path], fault);
        }
    }
    let mut all = urls.iter().map(|(_, url)| *url).chain(&routes);
    let tls = all.any(|url| matches!(url.endpoint, Endpoint::Https { .. }));
    if upstream.tls.is_some() && !tls && reader.is_good("upstream.url") {
        let fault = Fault::warning("`upstream.tls` has no effect: no upstream's url begins with https");
        reader.about(&["upstream.tls"], fault);
    }
}

/// Whether a url leads to this address of ours.
fn is_at(url: &UpstreamUrl, own: std::net::SocketAddr) -> bool {
    let (Endpoint::Http { host, port } | Endpoint::Https { host, port }) = &url.endpoint else { return false };
    let ip = if &**host == "localhost" { Ok([127, 0, 0, 1].into()) } else { host.parse::<std::net::IpAddr>() };
    *port == own.port() && ip.is_ok_and(|ip| ip == own.ip() || (own.ip().is_unspecified() && ip.is_loopback()))
}

fn proxies(reader: &Reader<'_>, config: &Config) {
    let listener = &config.listener;
    let nobody = listener.trusted_proxies.is_empty() && reader.is_good("listen.trusted_proxies");
    if listener.proxy_protocol && nobody {
        let fault = Fault::error(
            "`listen.proxy_protocol`: a PROXY header is taken from trusted_proxies only, and there are none, \
             so that nobody could connect",
        );
        reader.about(&["listen.proxy_protocol"], fault);
    }
    if nobody && reader.is_users("listen.client_ip_header") {
        let fault = Fault::warning("`listen.client_ip_header` is never read: there are no trusted_proxies");
        reader.about(&["listen.client_ip_header"], fault);
    }
    let reachable = listener.addresses.iter().find(|address| !address.ip().is_loopback());
    if let Some(address) = reachable.filter(|_| reader.is_good("listen.address") && nobody && !listener.proxy_protocol)
        && !config.limits.per_ip.is_empty()
    {
        let fault = Fault::warning(format!(
            "`limits.per_ip` counts the peer's address: {address} is not loopback and there are no trusted_proxies, so \
             behind a balancer all callers share one limit"
        ))
        .suggest("name the balancers in [listen] trusted_proxies; with none in front, all is well");
        reader.about(&["listen.address"], fault);
    }
}

fn keys(reader: &Reader<'_>, config: &Config) {
    let keys = &config.keys;
    if keys.mint.hash == Algorithm::HmacSha256 && keys.pepper.is_none() && reader.is_good("keys.pepper") {
        let fault =
            Fault::error("`keys.mint.hash`: hmac-sha256 needs a pepper, so that a stolen key file is of no use")
                .suggest("pepper = { file = \"pepper\" } in [keys]; keyside init makes one");
        reader.about(&["keys.mint.hash"], fault);
    }
    if keys.max_stale_write > keys.max_stale && reader.is_good("keys.max_stale") {
        let fault = Fault::warning("`keys.max_stale_write` can never take effect: `max_stale` is shorter");
        let users = reader.is_users("keys.max_stale_write");
        reader.about(&[if users { "keys.max_stale_write" } else { "keys.max_stale" }], fault);
    }
}

fn limits(reader: &Reader<'_>, config: &Config) {
    let limits = &config.limits;
    let mut lists = vec![
        ("limits.per_ip".to_owned(), &limits.per_ip),
        ("limits.per_key".to_owned(), &limits.per_key),
        ("limits.per_owner".to_owned(), &limits.per_owner),
        ("limits.failures_per_ip".to_owned(), &limits.failures_per_ip),
    ];
    lists.extend(limits.plans.iter().map(|(name, quotas)| (plan_path(name), quotas)));
    for (path, quotas) in &lists {
        for (index, by) in unreachable(quotas) {
            let quota = quotas[index];
            reader.about(
                &[&format!("{path}[{index}]"), path],
                Fault::warning(format!("`{path}`: {quota} can never be reached, since {by} is used up first")),
            );
        }
    }
    // A key takes from its owner's limit as well.
    for (path, quotas) in lists.iter().filter(|(path, _)| *path == "limits.per_key" || path.starts_with("limits.plans"))
    {
        for (index, quota) in quotas.iter().enumerate() {
            if let Some(by) = limits.per_owner.iter().find(|by| by.limit < quota.limit && hides(**by, *quota)) {
                let fault = Fault::warning(format!(
                    "`{path}`: {quota} can never be reached, since {by} of `limits.per_owner` is used up first"
                ));
                reader.about(&[&format!("{path}[{index}]"), path], fault);
            }
        }
    }
}

fn plan_path(name: &str) -> String {
    format!("limits.plans.{}", super::reader::quote_key(name))
}

/// The quotas that others make unreachable: their places, and by which.
pub(crate) fn unreachable(quotas: &[Quota]) -> Vec<(usize, Quota)> {
    let hidden = |index: usize, quota: &Quota| {
        let others = quotas.iter().enumerate().filter(|(other, _)| *other != index);
        // Of two that hide one another, which are equal ones, the later is of no use.
        let mut hiding = others.filter(|(other, by)| hides(**by, *quota) && (!hides(*quota, **by) || *other < index));
        hiding.next().map(|(_, by)| (index, *by))
    };
    quotas.iter().enumerate().filter_map(|(index, quota)| hidden(index, quota)).collect()
}

/// Whether who keeps to `by` always keeps to `quota`: no window of `quota` holds more than as many windows of `by` as
/// cover it.
fn hides(by: Quota, quota: Quota) -> bool {
    let covers = quota.window.as_secs().div_ceil(by.window.max(Duration::from_secs(1)).as_secs());
    u64::from(by.limit).saturating_mul(covers) <= u64::from(quota.limit)
}

fn routes(reader: &Reader<'_>, config: &Config) {
    let policy = Policy::new(&config.policy);
    for shadowed in policy.shadowed_routes() {
        let path = |index: usize| format!("route[{index}]");
        let (route, by) = (path(shadowed.route), path(shadowed.by));
        let earlier = reader.place(&by).map_or(String::new(), |place| format!(" ({})", place.origin()));
        let fault = Fault::warning(format!(
            "route {} can never match: route {} \"{}\"{earlier}, which comes before it, covers all that it covers{}",
            shadowed.route + 1,
            shadowed.by + 1,
            config.policy.routes[shadowed.by].path,
            not_asked_for(&config.policy.routes[shadowed.route], &config.policy.routes[shadowed.by]),
        ));
        reader.about(&[&format!("{route}.path"), &route], fault);
    }
    for index in policy.undecided_routes() {
        let fault = Fault::error(format!(
            "route {}: it names a method that is in none of [policy.methods], and no scope, so that nothing says what \
             such a request needs",
            index + 1
        ));
        reader.about(&[&format!("route[{index}].methods"), &format!("route[{index}]")], fault);
    }
    for (index, route) in config.policy.routes.iter().enumerate() {
        behind_front(reader, config, index);
        if route.public && route.observe {
            let fault = Fault::warning(format!("route {}: a public route has nothing to observe", index + 1));
            reader.about(&[&format!("route[{index}].mode")], fault);
        }
        if let (hosts, false) = (&route.hosts, config.policy.hosts.is_empty())
            && let Some(host) = hosts.iter().find(|host| !config.policy.hosts.contains_key(*host))
        {
            let fault = Fault::warning(format!(
                "route {}: {host} is not in [hosts], so it refuses keys with a mode",
                index + 1
            ));
            reader.about(&[&format!("route[{index}].hosts")], fault);
        }
    }
}

/// What a route that takes the requests of another one does not ask for, and that one would.
fn not_asked_for(of: &RouteSettings, by: &RouteSettings) -> String {
    let mut lost = Vec::new();
    // Any one of a list will do: who asks for some of them asks for more.
    if !of.scope.is_empty() && (by.scope.is_empty() || by.scope.iter().any(|scope| !of.scope.contains(scope))) {
        let scopes: Vec<_> = of.scope.iter().map(ToString::to_string).collect();
        lost.push(format!("the scope {}", scopes.join(" or ")));
    }
    if let Some(capability) = of.capability.as_deref().filter(|asked| by.capability.as_deref() != Some(*asked)) {
        lost.push(format!("the capability {capability}"));
    }
    if of.kyc && !by.kyc {
        lost.push("an approved KYC".to_owned());
    }
    match &lost[..] {
        [] => String::new(),
        lost => format!(", and does not ask for {}", lost.join(" and ")),
    }
}

/// A path behind a front controller is judged as what follows it, in the folder that it serves.
fn behind_front(reader: &Reader<'_>, config: &Config, index: usize) {
    let path = config.policy.routes[index].path.as_str();
    for controller in config.facts.front_controllers.iter().filter(|controller| ***controller != *"/") {
        let Some(rest) = path.strip_prefix(&**controller).filter(|rest| rest.starts_with('/')) else { continue };
        let (folder, file) = controller.rsplit_once('/').unwrap_or_default();
        // Judged as they stand are the controller's own path, and what ends like it.
        if rest == "/**" || rest.ends_with(file) {
            continue;
        }
        let fault = Fault::warning(format!(
            "route {} will not match: a path behind the front controller {controller} is judged as what follows it",
            index + 1
        ));
        let fault = fault.suggest(format!("path = \"{folder}{rest}\""));
        return reader.about(&[&format!("route[{index}].path"), &format!("route[{index}]")], fault);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(quotas: &str, expected: &[usize]) {
        let quotas: Vec<Quota> = quotas.split(' ').map(|quota| quota.parse().unwrap()).collect();
        let found: Vec<_> = unreachable(&quotas).into_iter().map(|(index, _)| index).collect();
        assert_eq!(found, expected);
    }

    #[test]
    fn a_limit_that_another_keeps_anyone_from_reaching_is_found() {
        check("60/1m 30/5s", &[]);
        check("600/1m 30/5s", &[0]);
        check("600/1m 500/1h", &[0]);
        check("60/1m 60/1m", &[1]);
        check("60/1m 1000/1d", &[]);
        check("900/1m 100/7s", &[0]);
        check("899/1m 100/7s", &[]);
    }
}
