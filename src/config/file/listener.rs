//! `[[listener]]`.
use super::World;
use super::entry::Entry;
use super::host::{self, Host};
use super::report::{Complaint, Place};
use super::table::Table;
use crate::config::{Address, Admin, Certificate, Listener};
use ipnet::IpNet;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

/// The listeners, with the places of their addresses.
pub(super) fn read(root: &Table, world: &World) -> Vec<(Listener, Option<Place>)> {
    let tables = root.tables("listener", "listener");
    if tables.is_empty() {
        let help = "add [[listener]] with an address, as in address = \"0.0.0.0:8443\"";
        root.report().absence(None, Complaint::new("there must be at least one [[listener]]").help(help));
    }
    tables.iter().map(|table| listener(table, world)).collect()
}

fn listener(table: &Table, world: &World) -> (Listener, Option<Place>) {
    let entry = table.entry("address");
    if entry.is_none() {
        table.missing("address", Some("write it as in address = \"0.0.0.0:8443\""));
    }
    let address = entry.as_ref().and_then(|e| address(e, world)).unwrap_or(Address::Tcp(vec![]));
    let proxies = table.entry("trusted_proxies").and_then(|e| e.list(1024)).unwrap_or_default();
    let tls = table.tables("tls", "listener.tls");
    let listener = Listener {
        address,
        trusted_proxies: proxies.iter().filter_map(|e| e.convert(network)).collect(),
        header_timeout: table.duration(
            "header_timeout",
            Duration::from_millis(100)..=Duration::from_secs(600),
            Duration::from_secs(10),
        ),
        client_ca: client_ca(&tls, world),
        tls: tls.iter().filter_map(|t| certificate(t, world)).collect(),
        http2: table.flag("http2", true),
        proxy_protocol: table.flag("proxy_protocol", false),
    };
    (listener, entry.map(|e| e.place()))
}

fn address(entry: &Entry, world: &World) -> Option<Address> {
    let text = entry.text()?;
    if text.starts_with("systemd:") {
        entry.complain(Complaint::new("an address `systemd:NAME` is not supported yet"));
        return None;
    }
    let Some(path) = text.strip_prefix("unix:") else { return addresses(entry, world).map(Address::Tcp) };
    let path = host::unix_path(path, &world.folder);
    let path = path.map_err(|complaint| complaint.help("write it as in \"unix:/run/wsgate/http.sock\""));
    path.map_err(|complaint| entry.complain(complaint)).ok().map(Address::Unix)
}

/// `HOST:PORT`, resolved; port 0 leaves the choice to the system.
pub(super) fn addresses(entry: &Entry, world: &World) -> Option<Vec<SocketAddr>> {
    entry.convert(|text| {
        let help = r#"write it as in "0.0.0.0:8443", "[::]:8443" or "localhost:8443""#;
        let (host, port) = host::with_port(text).map_err(|c| if c.help.is_none() { c.help(help) } else { c })?;
        let port = port.ok_or_else(|| Complaint::new("the port is missing").help(help))?;
        let name = match host {
            Host::Address(address) => return Ok(vec![SocketAddr::new(address, port)]),
            Host::Name(name) => name,
        };
        let mut found = Vec::new();
        for address in
            (world.resolve)(&name, port).map_err(|e| Complaint::new(format!("`{name}` has no address: {e}")))?
        {
            if !found.contains(&address) {
                found.push(address);
            }
        }
        if found.is_empty() {
            return Err(Complaint::new(format!("`{name}` has no address")));
        }
        Ok(found)
    })
}

fn network(text: &str) -> Result<IpNet, Complaint> {
    if let Ok(address) = text.parse::<IpAddr>() {
        return Ok(address.into());
    }
    let network: IpNet = text.parse().map_err(|_| {
        Complaint::new("this is no network").help("write it as in \"10.0.0.0/8\", \"fd00::/8\" or \"10.0.0.7\"")
    })?;
    if network.trunc() != network {
        let help = format!("write \"{}\"", network.trunc());
        return Err(Complaint::new("this network has bits set beyond its prefix").help(help));
    }
    Ok(network)
}

fn certificate(table: &Table, world: &World) -> Option<Certificate> {
    let has_acme = table.entry("acme").is_some();
    table.refuse_table("acme", "listener.tls.acme");
    let path = |key| {
        let entry = table.entry(key);
        if entry.is_none() && !has_acme {
            table.missing(key, None);
        }
        entry?.path(&world.folder)
    };
    let (certificate, private_key) = (path("certificate"), path("private_key"));
    let generate = table.flag("generate", false);
    Some(Certificate { certificate: certificate?, private_key: private_key?, generate })
}

/// The authorities of clients. One for all certificates of a listener: which of these is shown follows SNI, and which
/// route is taken the Host, so that with another name for the first a client would come in without showing its own.
fn client_ca(tables: &[Table], world: &World) -> Option<PathBuf> {
    let (first, others) = tables.split_first()?;
    let client_ca = |table: &Table| table.entry("client_ca").and_then(|e| e.path(&world.folder));
    let path = client_ca(first);
    for other in others.iter().filter(|other| client_ca(other) != path) {
        let message = "all [[listener.tls]] of a listener have the same `client_ca`, or none";
        let help = "a client chooses among them by a name, and could choose the one that asks for less; \
                    where some clients show no certificate, give these a listener of their own";
        let place = other.entry("client_ca").map(|e| e.place()).or_else(|| other.place());
        if let Some(place) = place {
            other.report().fault(place, Complaint::new(message).help(help));
        }
    }
    path
}

/// Notes addresses that two of the listeners and `[admin]` share.
pub(super) fn check_apart(
    root: &Table,
    listeners: &[(Listener, Option<Place>)],
    admin: Option<&(Admin, Option<Place>)>,
) {
    let mut taken: Vec<Address> = Vec::new();
    let mut check = |address: Address, place: &Option<Place>| {
        if taken.contains(&address)
            && let Some(place) = place
        {
            let message = "this address is taken by a listener above";
            root.report().fault(place.clone(), Complaint::new(message));
        }
        taken.push(address);
    };
    for (listener, place) in listeners {
        match &listener.address {
            Address::Unix(path) => check(Address::Unix(path.clone()), place),
            Address::Tcp(all) => {
                for address in all.iter().filter(|a| a.port() != 0) {
                    check(Address::Tcp(vec![*address]), place);
                }
            }
        }
    }
    if let Some((admin, place)) = admin.filter(|(admin, _)| admin.address.port() != 0) {
        check(Address::Tcp(vec![admin.address]), place);
    }
}
