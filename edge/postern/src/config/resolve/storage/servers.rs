//! `databroker_storage_type: redis`: which servers, and how they are spoken to.

use std::net::IpAddr;
use std::time::Duration;

use percent_encoding::percent_decode_str;
use postern_identity::Secret;
use postern_storage::{Credentials, RedisTls, Server, Topology};

use crate::config::Code;
use crate::config::block::Block;
use crate::config::context::Context;
use crate::config::value::Spanned;

/// What a connection string says.
#[derive(Debug)]
pub(super) struct Servers {
    pub(super) topology: Topology,
    pub(super) credentials: Option<Credentials>,
    pub(super) database: u8,
    pub(super) tls: bool,
}

impl Servers {
    /// Every server that is named.
    fn all(&self) -> &[Server] {
        match &self.topology {
            Topology::Single(server) => std::slice::from_ref(server),
            Topology::Sentinel { sentinels: servers, .. } | Topology::Cluster(servers) => servers,
        }
    }
}

/// What the keys beside it say.
#[derive(Debug)]
pub(super) struct Options {
    pub(super) tls: RedisTls,
    pub(super) prefix: String,
    pub(super) copies: u32,
    pub(super) connect: Duration,
    pub(super) operation: Duration,
}

const FORMS: &str = "write `redis://HOST:6379`, `rediss://…` for TLS, `redis+sentinel://HOST:26379,HOST:26379/MASTER` or \
                     `redis+cluster://HOST:6379,HOST:6379`";

/// The servers of the connection string, if it can be used.
pub(super) fn resolve(
    cx: &mut Context<'_>,
    settings: &Block<'_>,
    (connection, insecure): (Option<Spanned<String>>, bool),
) -> Option<Servers> {
    let Some(connection) = connection else {
        let at = settings.at("databroker_storage_type");
        cx.fatal(Code::BadStorage, &at, "the store `redis` needs a connection string", FORMS);
        return None;
    };
    let servers = match parse(&connection.value) {
        Ok(servers) => servers,
        Err(why) => {
            cx.fatal(Code::BadStorage, &connection.at, format!("the connection string {why}"), FORMS);
            return None;
        }
    };
    if let Some((first, again)) = repeated(servers.all()) {
        let what = format!("the connection string names its server {first} once more as server {again}");
        let hint = "name each server once: a Sentinel that is named twice would be counted twice";
        cx.fatal(Code::BadStorage, &connection.at, what, hint);
    }
    if !insecure {
        let client = settings.find("databroker_storage_cert_file").is_some();
        if let Some(why) = exposed(&servers, client) {
            let hint = "write `rediss…://` and credentials; or `databroker_storage_insecure: true` if the network is trusted like one machine";
            cx.fatal(Code::BadStorage, &connection.at, why, hint);
        }
    }
    Some(servers)
}

/// The keys for TLS, time and names. They are read for every store, so that their mistakes are told in any case.
pub(super) fn options(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<Options> {
    let bounded = |cx: &mut Context<'_>, key: &str, default: u64, most: u64| {
        let written = settings.duration(cx, key).unwrap_or(Duration::from_millis(default));
        if written < Duration::from_millis(10) || written > Duration::from_millis(most) {
            let hint = format!("write a duration from `10ms` to `{most}ms`");
            cx.fatal(Code::OutOfRange, &settings.at(key), format!("`{key}` is out of its range"), hint);
        }
        written
    };
    let connect = bounded(cx, "databroker_storage_connect_timeout", 1_000, 30_000);
    let operation = bounded(cx, "databroker_storage_operation_timeout", 500, 5_000);
    let copies = settings.find("databroker_storage_copies").and_then(|field| field.within(cx, 0, 5)).unwrap_or(1);
    let prefix = settings.text(cx, "databroker_storage_key_prefix").unwrap_or_default();
    if prefix.len() > 64 || !prefix.bytes().all(|byte| byte.is_ascii_graphic() && !b"{}*?[]\\".contains(&byte)) {
        let what = "`databroker_storage_key_prefix` holds what no key may begin with";
        let hint = "write at most 64 letters, digits and signs, without braces, brackets, `*`, `?` and `\\`";
        cx.fatal(Code::BadStorage, &settings.at("databroker_storage_key_prefix"), what, hint);
    }
    Some(Options { tls: tls(cx, settings)?, prefix, copies: u32::try_from(copies).unwrap_or(1), connect, operation })
}

fn tls(cx: &mut Context<'_>, settings: &Block<'_>) -> Option<RedisTls> {
    let mut file = |key: &str| match settings.filled(cx, key) {
        Some(path) => cx.file(&path.at, &path.value).map(Some),
        None => Some(None),
    };
    let (roots, certificate, key) = (
        file("databroker_storage_ca_file")?,
        file("databroker_storage_cert_file")?,
        file("databroker_storage_key_file")?,
    );
    let client = match (certificate, key) {
        (Some(certificate), Some(key)) => Some((certificate, Secret::new(key))),
        (None, None) => None,
        (certificate, _) => {
            let (has, lacks) = if certificate.is_some() { ("cert", "key") } else { ("key", "cert") };
            let lacks = format!("databroker_storage_{lacks}_file");
            let at = settings.at(&format!("databroker_storage_{has}_file"));
            let what = format!("a certificate and its key go together, and `{lacks}` is missing");
            cx.fatal(Code::MissingKey, &at, what, format!("add `{lacks}`"));
            return None;
        }
    };
    let tls = RedisTls { roots, client };
    if let Err(why) = tls.check() {
        let keys = ["databroker_storage_cert_file", "databroker_storage_ca_file"];
        let at = keys
            .into_iter()
            .find(|key| settings.find(key).is_some())
            .map_or_else(|| settings.at("databroker_storage_ca_file"), |key| settings.at(key));
        cx.fatal(Code::BadCertificate, &at, why, "name PEM files that belong together");
        return None;
    }
    Some(tls)
}

/// Which server is named twice, counted from 1, and where it is named again.
fn repeated(servers: &[Server]) -> Option<(usize, usize)> {
    let spelled = |server: &Server| match server.host.parse::<IpAddr>() {
        Ok(address) => (address.to_string(), server.port),
        Err(_) => (server.host.trim_end_matches('.').to_ascii_lowercase(), server.port),
    };
    let spelled: Vec<_> = servers.iter().map(spelled).collect();
    let first = |again: usize| spelled.iter().take(again).position(|server| Some(server) == spelled.get(again));
    (0..spelled.len()).find_map(|again| Some((first(again)? + 1, again + 1)))
}

/// Why what is sent, or who sends it, is not protected (S-114).
fn exposed(servers: &Servers, client_certificate: bool) -> Option<&'static str> {
    if servers.all().iter().all(Server::is_loopback) {
        return None;
    }
    if !servers.tls {
        return Some("the store is on another machine, and the connection to it is not encrypted");
    }
    let anonymous = servers.credentials.is_none() && !client_certificate;
    anonymous.then_some("the store is on another machine, and nobody has to say who they are there")
}

/// `SCHEME://[USER[:PASSWORD]@]HOST[:PORT][,HOST[:PORT]…][/…][?…]`. Never repeats what it was given: that holds a password.
fn parse(text: &str) -> Result<Servers, String> {
    let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
    let scheme = scheme.to_ascii_lowercase().replace('-', "+");
    let (kind, tls) = match scheme.as_str() {
        "redis" | "valkey" => (Kind::Single, false),
        "rediss" | "valkeys" => (Kind::Single, true),
        "redis+sentinel" | "valkey+sentinel" => (Kind::Sentinel, false),
        "rediss+sentinel" | "valkeys+sentinel" => (Kind::Sentinel, true),
        "redis+cluster" | "valkey+cluster" => (Kind::Cluster, false),
        "rediss+cluster" | "valkeys+cluster" => (Kind::Cluster, true),
        _ => return Err("has a scheme that names no store".to_owned()),
    };
    let (rest, query) = rest.split_once('?').unwrap_or((rest, ""));
    let (authority, path) = rest.split_once('/').unwrap_or((rest, ""));
    let (login, hosts) = authority.rsplit_once('@').map_or((None, authority), |(login, hosts)| (Some(login), hosts));
    let default = if matches!(kind, Kind::Sentinel) { 26_379 } else { 6_379 };
    let servers = hosts.split(',').map(|host| server(host, default)).collect::<Result<Vec<_>, _>>()?;
    let sentinel = query_of(query, kind)?;
    let credentials = login.map(self::login).transpose()?.flatten();
    let number =
        |text: &str| if text.is_empty() { Ok(0) } else { text.parse().map_err(|_| "names no database".to_owned()) };
    let (topology, database) = match (kind, servers.as_slice()) {
        (Kind::Single, [one]) => (Topology::Single(one.clone()), number(path)?),
        (Kind::Single, _) => return Err("names several servers that are not said to belong together".to_owned()),
        (Kind::Cluster, _) if !matches!(path, "" | "0") => {
            return Err("names a database, and a cluster has only 0".to_owned());
        }
        (Kind::Cluster, _) => (Topology::Cluster(servers), 0),
        (Kind::Sentinel, _) => {
            let (master, database) = path.split_once('/').unwrap_or((path, ""));
            if master.is_empty() {
                return Err("does not say which master is meant".to_owned());
            }
            let master = decoded(master)?;
            (Topology::Sentinel { sentinels: servers, master, credentials: sentinel }, number(database)?)
        }
    };
    Ok(Servers { topology, credentials, database, tls })
}

#[derive(Debug, Clone, Copy)]
enum Kind {
    Single,
    Sentinel,
    Cluster,
}

fn server(text: &str, default: u16) -> Result<Server, String> {
    let bad = || "names a host or port that cannot be".to_owned();
    let (host, port) = match text.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
        Some((host, rest)) => {
            host.parse::<IpAddr>().map_err(|_| bad())?;
            (host, rest.strip_prefix(':').or_else(|| rest.is_empty().then_some("")).ok_or_else(bad)?)
        }
        None => text.split_once(':').unwrap_or((text, "")),
    };
    let port = if port.is_empty() { default } else { port.parse().map_err(|_| bad())? };
    let plausible = |byte: u8| byte.is_ascii_alphanumeric() || b".-_:".contains(&byte);
    if host.is_empty() || port == 0 || !host.bytes().all(plausible) {
        return Err(bad());
    }
    Ok(Server { host: host.to_owned(), port })
}

fn login(text: &str) -> Result<Option<Credentials>, String> {
    let Some((user, password)) = text.split_once(':') else { return Err("has a user and no password".to_owned()) };
    let (user, password) = (decoded(user)?, decoded(password)?);
    if password.is_empty() {
        return Err("has an empty password".to_owned());
    }
    Ok(Some(Credentials { username: (!user.is_empty()).then_some(user), password: Secret::new(password) }))
}

/// `sentinel_username` and `sentinel_password`, of Sentinels.
fn query_of(query: &str, kind: Kind) -> Result<Option<Credentials>, String> {
    let (mut username, mut password) = (None, None);
    for (name, value) in
        query.split('&').filter(|pair| !pair.is_empty()).map(|pair| pair.split_once('=').unwrap_or((pair, "")))
    {
        match (name, kind) {
            ("sentinel_username", Kind::Sentinel) => username = Some(decoded(value)?),
            ("sentinel_password", Kind::Sentinel) => password = Some(Secret::new(decoded(value)?)),
            _ => return Err("has a parameter that does not exist".to_owned()),
        }
    }
    match (username, password) {
        (username, Some(password)) => Ok(Some(Credentials { username, password })),
        (None, None) => Ok(None),
        (Some(_), None) => Err("has a `sentinel_username` and no `sentinel_password`".to_owned()),
    }
}

fn decoded(text: &str) -> Result<String, String> {
    let decoded = percent_decode_str(text).decode_utf8();
    decoded.map(std::borrow::Cow::into_owned).map_err(|_| "holds what is not UTF-8".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(host: &str, port: u16) -> Server {
        Server { host: host.to_owned(), port }
    }

    #[test]
    fn each_form_names_its_servers() {
        let single = parse("redis://127.0.0.1").unwrap();
        assert_eq!(single.topology, Topology::Single(at("127.0.0.1", 6379)));
        assert!(!single.tls && single.credentials.is_none() && single.database == 0);
        let single = parse("rediss://edge:p%40ss:w@[::1]:6380/3").unwrap();
        assert_eq!(single.topology, Topology::Single(at("::1", 6380)));
        let credentials = single.credentials.unwrap();
        assert_eq!(credentials.username.as_deref(), Some("edge"));
        assert_eq!(credentials.password.expose(), "p@ss:w");
        assert!(single.tls && single.database == 3);
        let cluster = parse("rediss+cluster://:secret@a:1,b,c.example:3").unwrap();
        assert_eq!(cluster.topology, Topology::Cluster(vec![at("a", 1), at("b", 6379), at("c.example", 3)]));
        assert_eq!(cluster.credentials.unwrap().username, None);
        let watched = parse("redis-sentinel://u:p@a,b:2/main/5?sentinel_password=q").unwrap();
        let Topology::Sentinel { sentinels, master, credentials } = watched.topology else { panic!("not watched") };
        assert_eq!((sentinels, master.as_str()), (vec![at("a", 26379), at("b", 2)], "main"));
        assert_eq!(credentials.unwrap().password.expose(), "q");
        assert_eq!(watched.database, 5);
    }

    #[test]
    fn s_107_what_is_wrong_is_told_without_the_text() {
        let texts = [
            "hunter2",
            "http://u:hunter2@a",
            "redis://u:hunter2@a,b",
            "redis://hunter2@a",
            "redis://u:@hunter2",
            "redis://u:hunter2@a:0",
            "redis://u:hunter2@a:x",
            "redis://u:hunter2@",
            "redis://u:hunter2@a/x",
            "redis+cluster://u:hunter2@a/1",
            "redis+sentinel://u:hunter2@a",
            "redis://u:hunter2@a?sentinel_password=hunter2",
            "redis+sentinel://a/m?sentinel_username=hunter2",
            "redis+sentinel://a/m?hunter2=1",
        ];
        for text in texts {
            let why = parse(text).err().unwrap_or_else(|| panic!("{text} was taken"));
            assert!(!why.contains("hunter2"), "{why}");
        }
    }

    #[test]
    fn a_server_that_is_named_twice_is_found_however_it_is_spelled() {
        let repeated = |text: &str| repeated(parse(text).unwrap().all());
        assert_eq!(repeated("redis+sentinel://a,b,A.:26379/main"), Some((1, 3)));
        assert_eq!(repeated("redis+cluster://c,[::1]:7,[0::1]:7"), Some((2, 3)));
        for fine in ["redis://a", "redis+cluster://a:1,a:2,b:1", "redis+sentinel://10.0.0.1,10.0.0.2,10.0.0.3/main"] {
            assert_eq!(repeated(fine), None, "{fine}");
        }
    }

    #[test]
    fn s_114_a_store_elsewhere_is_encrypted_and_asks_who_it_is() {
        let exposed = |text: &str, certificate| exposed(&parse(text).unwrap(), certificate).is_some();
        for fine in ["redis://localhost", "redis://127.0.0.5:1", "redis://[::1]", "rediss://u:p@10.0.0.1"] {
            assert!(!exposed(fine, false), "{fine}");
        }
        for bad in [
            "redis://u:p@10.0.0.1",
            "rediss://10.0.0.1",
            "redis+cluster://localhost,redis.example",
            "redis://localhost.example",
        ] {
            assert!(exposed(bad, false), "{bad}");
        }
        assert!(!exposed("rediss://10.0.0.1", true), "a client certificate says who it is");
    }
}
