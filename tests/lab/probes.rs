//! What is asked inside the tunnels, of real servers behind strongSwan.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU16, Ordering};
use std::time::Duration;

use trefoil::edge::{Explanation, ProbeStatus, SiteStatus};

use super::bench::Bench;
use super::daemon::{tunnel, tunnels};
use super::namespace::Namespace;
use super::process::{Process, wait_for};
use super::requirements::lab_is_possible;
use super::say;
use super::site::Site;
use super::topology::{DSL, FIBRE, LAN_HOST, SERVER};

const PROBES: &str = r#"
[connector.pops.probes]
targets = [
    "198.19.0.10",
    { kind = "udp", address = "198.19.0.10" },
    { kind = "udp", address = "198.19.0.10", port = 6666 },
    { kind = "tcp", address = "198.19.0.10", port = 8080 },
    { kind = "http", address = "198.19.0.10", port = 8080, path = "/health", status = 200 },
    { kind = "https", address = "198.19.0.10", port = 8443, host = "app.test", status = 200 },
    { kind = "dns", address = "198.19.0.10", name = "app.test", rcode = "noerror" },
    { kind = "tcp", address = "198.19.0.10", port = 4 },
]
need = 2
interval = "200ms"
"#;

/// The places of the targets above.
const LIAR: usize = 2;
const HTTP: usize = 4;
const CLOSED: usize = 7;

/// Answers in a namespace: UDP echo, one that lies, HTTP, OpenSSL's HTTPS, and DNS.
struct Servers {
    /// What HTTP answers.
    status: Arc<AtomicU16>,
    _names: Process,
    _secure: Process,
}

impl Servers {
    fn start(namespace: &Namespace, bench_directory: &std::path::Path) -> Servers {
        let at = |port| SocketAddr::from((SERVER, port));
        let (echo, liar, web) = namespace.enter(move || {
            let udp = |port| UdpSocket::bind(at(port)).expect("a UDP socket");
            (udp(7), [udp(6_666), udp(6_667)], TcpListener::bind(at(8_080)).expect("a TCP socket"))
        });
        std::thread::spawn(move || {
            let mut room = [0; 2_048];
            while let Ok((length, from)) = echo.recv_from(&mut room) {
                let _ = echo.send_to(&room[..length], from);
            }
        });
        std::thread::spawn(move || lie(&liar));
        let status = Arc::new(AtomicU16::new(200));
        let told = Arc::clone(&status);
        std::thread::spawn(move || {
            for connection in web.incoming().flatten() {
                let told = told.load(Ordering::Relaxed);
                std::thread::spawn(move || answer(connection, told));
            }
        });
        let mut command = namespace.command("dnsmasq");
        command.args(["--keep-in-foreground", "--no-resolv", "--no-hosts", "--bind-interfaces", "--local=/test/"]);
        command.args(["--user=root", "--pid-file=", "--log-facility=-", "--address=/app.test/198.19.0.10"]);
        command.arg(format!("--listen-address={SERVER}"));
        let names = Process::start(&mut command, &bench_directory.join("server-dnsmasq.log"));
        let (key, certificate) = (bench_directory.join("tls.key"), bench_directory.join("tls.pem"));
        let make = "req -x509 -newkey rsa:4096 -nodes -subj /CN=app.test -days 1 -keyout";
        let made = Command::new("openssl").args(make.split(' ')).arg(&key).arg("-out").arg(&certificate).output();
        assert!(made.is_ok_and(|made| made.status.success()), "openssl makes no certificate");
        let mut command = namespace.command("openssl");
        command.args(["s_server", "-www", "-accept", "8443", "-key"]).arg(&key).arg("-cert").arg(&certificate);
        let secure = Process::start(&mut command, &bench_directory.join("server-openssl.log"));
        Servers { status, _names: names, _secure: secure }
    }
}

/// Garbage first, then the answer twice, then once more from another port.
fn lie([socket, other]: &[UdpSocket; 2]) {
    let mut room = [0; 2_048];
    while let Ok((length, from)) = socket.recv_from(&mut room) {
        let _ = socket.send_to(b"not what you sent", from);
        for _ in 0..2 {
            let _ = socket.send_to(&room[..length], from);
        }
        let _ = other.send_to(&room[..length], from);
    }
}

fn answer(mut connection: TcpStream, status: u16) {
    let _ = connection.set_read_timeout(Some(Duration::from_secs(2)));
    let mut room = [0; 1_024];
    if connection.read(&mut room).is_ok_and(|length| room[..length].starts_with(b"GET /health HTTP/1.1\r\n")) {
        let head = format!("HTTP/1.1 {status} Told\r\nContent-Length: 5\r\nConnection: close\r\n\r\n");
        // Head, page and FIN are segments of their own, as a busy server's are.
        let _ = connection.set_nodelay(true);
        let _ = connection.write_all(head.as_bytes()).and_then(|()| connection.write_all(b"well\n"));
    }
}

fn probes<'a>(status: &'a SiteStatus, link: &str) -> &'a [ProbeStatus] {
    &tunnel(status, "primary", link).probes
}

#[test]
fn every_kind_of_probe_is_answered_behind_a_pop_and_what_lies_there_is_told_from_the_path() {
    if !lab_is_possible() {
        return;
    }
    let mut site = Site { probes: PROBES, ..Site::new() };
    site.roles[0].links = vec![FIBRE, DSL];
    site.roles[1].links = Vec::new();
    let bench = Bench::ready(site);
    let servers = Servers::start(&bench.lab.server, bench.directory());
    let limit = Duration::from_secs(20);
    let answers = |probe: &ProbeStatus| probe.state == "answers" && probe.loss_percent == Some(0.0);
    // The window still shows what was lost before the servers ran.
    let status = bench.trefoil.wait("every target answers over each tunnel", limit, |status| {
        tunnels(status).all(|tunnel| {
            tunnel.verdict == "healthy"
                && tunnel.probes.iter().enumerate().all(|(index, probe)| {
                    if index == CLOSED {
                        probe.refusal.as_deref() == Some("connection refused")
                    } else {
                        answers(probe)
                    }
                })
        })
    });
    for (link, least) in [(FIBRE, 8.0), (DSL, 24.0)] {
        let probes = probes(&status, link.name);
        say(&format!("probes over {}: {probes:#?}", link.name));
        for probe in &probes[..CLOSED] {
            let rtt = probe.rtt_ms.expect("measured");
            assert!(rtt >= least && rtt < least + 30.0, "{probe:?}");
        }
        // It lies in three ways, and is believed in none.
        let liar = &probes[LIAR];
        assert!(liar.unexpected > 0 && liar.malformed > 0 && liar.refused == 0, "{liar:?}");
        assert!(tunnel(&status, "primary", link.name).stray_answers > 0);
        // A web server's page and FIN after the line that was read are nobody's stray answers.
        assert_eq!((probes[HTTP - 1].unexpected, probes[HTTP].unexpected), (0, 0), "{probes:#?}");
    }
    say(&bench.trefoil.table());

    // One that says no: a note, and no word against the path.
    servers.status.store(503, Ordering::Relaxed);
    let status = bench.trefoil.wait("the sick server is told", limit, |status| {
        probes(status, "fibre")[HTTP].refusal.as_deref() == Some("HTTP status 503")
            && probes(status, "fibre")[HTTP].state == "silent"
    });
    let fibre = tunnel(&status, "primary", "fibre");
    assert_eq!((fibre.verdict.as_str(), fibre.loss_percent), ("healthy", Some(0.0)), "{fibre:?}");
    let note = fibre.note.clone().unwrap_or_default();
    assert!(note.contains("http 198.19.0.10:8080/health (HTTP status 503)") && note.contains("others are"), "{note}");
    servers.status.store(200, Ordering::Relaxed);

    // Everything behind the PoP goes: the tunnels live, and status and explain say where to look.
    bench.lab.server.ip("link set pop1 down\n");
    let status = bench.trefoil.wait("what lies behind the PoP is suspect", limit, |status| {
        tunnels(status).all(|tunnel| tunnel.note.as_ref().is_some_and(|note| note.contains("suspect what lies behind")))
    });
    assert!(tunnels(&status).all(|tunnel| tunnel.usable && tunnel.verdict == "degraded"), "{}", bench.trefoil.table());
    let arguments = ["explain", "udp", &format!("{LAN_HOST}:5000"), &format!("{SERVER}:5000")];
    say(&bench.trefoil.verb(&arguments));
    let json = bench.trefoil.verb(&[&arguments[..], &["--json"]].concat());
    let told: Explanation = serde_json::from_str(&json).expect("JSON");
    let suspects = |note: &Option<String>| note.as_ref().is_some_and(|note| note.contains("behind the PoP"));
    assert!(told.tunnel.is_some() && told.candidates.iter().all(|one| suspects(&one.note)), "{told:#?}");
    std::thread::sleep(Duration::from_secs(3));
    assert!(bench.trefoil.status().is_some_and(|status| tunnels(&status).all(|tunnel| tunnel.usable)));

    bench.lab.server.ip("link set pop1 up\nroute add 198.18.0.0/16 via 198.19.1.1 src 198.19.0.10\n");
    wait_for("they are well again", Duration::from_secs(40), || {
        let status = bench.trefoil.status()?;
        tunnels(&status).all(|tunnel| tunnel.verdict == "healthy").then_some(())
    });
}
