use std::io::{Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::process::Command;
use std::sync::mpsc;
use std::thread;

use hickory_resolver::config::NameServerConfig;

use super::*;

const A: u16 = 1;
const AAAA: u16 = 28;

/// Response codes (RFC 1035 4.1.1).
const NO_ERROR: u8 = 0;
const SERVER_FAILURE: u8 = 2;
const NAME_ERROR: u8 = 3;

/// What a server answers to a question for this type.
type Answer = fn(query: &[u8], kind: u16, over_tcp: bool) -> Option<Vec<u8>>;

/// A name server until nobody has asked it for some seconds.
fn serve(address: SocketAddr, answer: Answer) -> SocketAddr {
    let udp = UdpSocket::bind(address).unwrap();
    let address = udp.local_addr().unwrap();
    let tcp = TcpListener::bind(address).unwrap();
    udp.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, from)) = udp.recv_from(&mut query) {
            let query = &query[..length];
            if let Some(reply) = answer(query, question(query).1, false) {
                udp.send_to(&reply, from).unwrap();
            }
        }
    });
    // It ends with the test process, or when its first client has gone.
    thread::spawn(move || {
        let (mut stream, _) = tcp.accept().unwrap();
        let mut length = [0; 2];
        while stream.read_exact(&mut length).is_ok() {
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            stream.read_exact(&mut query).unwrap();
            let reply = answer(&query, question(&query).1, true).unwrap();
            stream.write_all(&(reply.len() as u16).to_be_bytes()).unwrap();
            stream.write_all(&reply).unwrap();
        }
    });
    address
}

/// The question as it stands behind the header, and its type.
fn question(query: &[u8]) -> (&[u8], u16) {
    let mut end = 12;
    while query[end] != 0 {
        end += 1 + usize::from(query[end]);
    }
    (&query[12..end + 5], u16::from_be_bytes([query[end + 1], query[end + 2]]))
}

/// A response with records of one type for the name of the question (RFC 1035 4.1).
fn reply<const LENGTH: usize>(query: &[u8], code: u8, kind: u16, addresses: &[[u8; LENGTH]]) -> Vec<u8> {
    let mut reply = query[..2].to_vec();
    reply.extend([0x81, 0x80 | code, 0, 1, 0, addresses.len() as u8, 0, 0, 0, 0]);
    reply.extend(question(query).0);
    for address in addresses {
        reply.extend([0xc0, 12]);
        reply.extend(kind.to_be_bytes());
        reply.extend([0, 1, 0, 0, 0, 60, 0, LENGTH as u8]);
        reply.extend(address);
    }
    reply
}

fn empty(query: &[u8], code: u8) -> Vec<u8> {
    reply::<4>(query, code, A, &[])
}

fn asker() -> Asker {
    Asker { underlay: UnderlayId(0), source: None, interface: None, fwmark: None, inside: Arc::new([]) }
}

fn ask(server: SocketAddr, asker: Asker) -> Result<Vec<Ipv4Addr>, ResolveFailure> {
    let mut config = NameServerConfig::udp_and_tcp(server.ip());
    for connection in &mut config.connections {
        connection.port = server.port();
    }
    let servers = NameServers {
        config: ResolverConfig::from_parts(None, Vec::new(), vec![config]),
        options: ResolverOpts::default(),
        timeout: Duration::from_secs(1),
    };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(servers.ask("pop.example", asker))
}

fn ask_one_that_says(answer: Answer) -> Result<Vec<Ipv4Addr>, ResolveFailure> {
    ask(serve(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), answer), asker())
}

fn is_unavailable(outcome: &Result<Vec<Ipv4Addr>, ResolveFailure>) -> bool {
    matches!(outcome, Err(ResolveFailure::Unavailable(_)))
}

#[test]
fn addresses_come_in_the_order_of_the_answer() {
    let outcome =
        ask_one_that_says(|query, _, _| Some(reply(query, NO_ERROR, A, &[[198, 51, 100, 9], [192, 0, 2, 1]])));
    assert_eq!(outcome, Ok(vec![Ipv4Addr::new(198, 51, 100, 9), Ipv4Addr::new(192, 0, 2, 1)]));
}

#[test]
fn a_name_that_does_not_exist_is_told_from_one_with_only_ipv6() {
    let outcome = ask_one_that_says(|query, _, _| Some(empty(query, NAME_ERROR)));
    assert_eq!(outcome, Err(ResolveFailure::NoSuchName));
    let outcome = ask_one_that_says(|query, kind, _| {
        let addresses = [Ipv6Addr::LOCALHOST.octets()];
        Some(reply(query, NO_ERROR, AAAA, if kind == AAAA { &addresses } else { &[] }))
    });
    assert_eq!(outcome, Err(ResolveFailure::OnlyIpv6));
    let outcome = ask_one_that_says(|query, _, _| Some(empty(query, NO_ERROR)));
    assert_eq!(outcome, Err(ResolveFailure::Unavailable("the name exists, but has no address".to_owned())));
}

#[test]
fn a_server_that_fails_or_is_silent_says_nothing_of_the_name() {
    let outcome = ask_one_that_says(|query, kind, _| {
        // Were it taken for "no IPv4 address", this would be "only IPv6".
        let addresses = [Ipv6Addr::LOCALHOST.octets()];
        Some(if kind == AAAA { reply(query, NO_ERROR, AAAA, &addresses) } else { empty(query, SERVER_FAILURE) })
    });
    assert!(is_unavailable(&outcome), "{outcome:?}");
    let outcome = ask_one_that_says(|_, _, over_tcp| over_tcp.then(Vec::new));
    let told = outcome.unwrap_err().reason("pop.example");
    let begins = told.starts_with("the name pop.example cannot be looked up: ");
    assert!(begins && told.ends_with(" (asked 127.0.0.1)"), "{told}");
}

#[test]
fn garbage_is_no_answer() {
    for answer in [
        (|query, _, _| Some(vec![0xff; query.len()])) as Answer,
        |query, _, _| Some(query[..7].to_vec()),
        // More answers promised than there are.
        |query, _, _| {
            let mut cut = reply(query, NO_ERROR, A, &[[192, 0, 2, 1]]);
            cut.truncate(cut.len() - 3);
            Some(cut)
        },
        // A name that points at itself.
        |query, _, _| {
            let mut looped = query[..2].to_vec();
            looped.extend([0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0, 0xc0, 12, 0, 1, 0, 1]);
            Some(looped)
        },
        |_, _, _| Some(Vec::new()),
    ] {
        let outcome = ask_one_that_says(answer);
        assert!(is_unavailable(&outcome), "{outcome:?}");
    }
}

#[test]
fn addresses_that_no_pop_can_have_are_left_out() {
    const BOGUS: [[u8; 4]; 6] =
        [[0, 0, 0, 0], [0, 1, 2, 3], [127, 0, 0, 1], [224, 0, 0, 1], [240, 0, 0, 1], [255, 255, 255, 255]];
    let outcome = ask_one_that_says(|query, _, _| Some(reply(query, NO_ERROR, A, &BOGUS)));
    assert_eq!(outcome, Err(ResolveFailure::Unavailable("the answer has no usable IPv4 address".to_owned())));
    let outcome = ask_one_that_says(|query, _, _| {
        Some(reply(query, NO_ERROR, A, &[BOGUS.as_slice(), [[223, 255, 255, 1]].as_slice()].concat()))
    });
    assert_eq!(outcome, Ok(vec![Ipv4Addr::new(223, 255, 255, 1)]));
}

/// Forty addresses, of which a resolver without EDNS gets none over UDP.
fn many(query: &[u8], _: u16, over_tcp: bool) -> Option<Vec<u8>> {
    let addresses: Vec<[u8; 4]> = (1..=40).map(|last| [192, 0, 2, last]).collect();
    if over_tcp {
        return Some(reply(query, NO_ERROR, A, &addresses));
    }
    let mut truncated = empty(query, NO_ERROR);
    truncated[2] |= 0x02;
    Some(truncated)
}

#[test]
fn a_long_answer_is_fetched_over_tcp_and_cut_to_the_limit() {
    let addresses = ask_one_that_says(many).unwrap();
    assert_eq!(addresses.len(), ANSWER_LIMIT);
    assert_eq!(addresses.last(), Some(&Ipv4Addr::new(192, 0, 2, 32)));
}

#[test]
fn a_name_that_leads_to_itself_or_ever_on_is_given_up() {
    const CNAME: u16 = 5;
    for answer in [
        (|query, _, _| Some(reply(query, NO_ERROR, CNAME, &[[0xc0, 12]]))) as Answer,
        // Each name leads to one that is longer.
        |query, _, _| Some(reply(query, NO_ERROR, CNAME, &[[1, b'a', 0xc0, 12]])),
    ] {
        let start = std::time::Instant::now();
        let outcome = ask_one_that_says(answer);
        assert!(is_unavailable(&outcome), "{outcome:?}");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
    }
}

#[test]
fn thousands_of_addresses_that_are_valid_for_no_time_are_cut_to_the_limit() {
    let addresses = ask_one_that_says(|query, _, over_tcp| {
        let mut answer = empty(query, NO_ERROR);
        if !over_tcp {
            answer[2] |= 0x02;
            return Some(answer);
        }
        answer[6..8].copy_from_slice(&4_000u16.to_be_bytes());
        for number in 0..4_000u16 {
            let [high, low] = number.to_be_bytes();
            answer.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 0, 0, 4, 198, 51, high, low]);
        }
        Some(answer)
    });
    assert_eq!(addresses.unwrap().len(), ANSWER_LIMIT);
}

/// The name server's addresses, the same behind both WAN links.
const SERVER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(203, 0, 113, 53)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x53, 0, 0, 0, 0, 0x53))];

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().unwrap();
    assert!(output.status.success(), "ip {arguments}: {}", String::from_utf8_lossy(&output.stderr));
}

/// The internet behind a WAN link, in a namespace of its own: with a name server whose answer
/// tells which of the links was used. The sender returned ends it.
fn attach_internet(link: u8, answer: Answer) -> mpsc::Sender<()> {
    let (tell, told) = mpsc::channel();
    let (end, ended) = mpsc::channel::<()>();
    let (go, start) = mpsc::channel::<()>();
    let (ready, is_ready) = mpsc::channel();
    thread::spawn(move || {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        tell.send(nix::unistd::gettid()).unwrap();
        start.recv().unwrap();
        for line in [
            "link set lo up".to_owned(),
            format!("link set far{link} up"),
            format!("address add 198.51.{link}.1/24 dev far{link}"),
            format!("-6 address add 2001:db8:{link}::1/64 dev far{link} nodad"),
            "address add 203.0.113.53/32 dev lo".to_owned(),
            "-6 address add 2001:db8:53::53/128 dev lo nodad".to_owned(),
        ] {
            ip(&line);
        }
        for address in SERVER {
            serve(SocketAddr::new(address, 53), answer);
        }
        ready.send(()).unwrap();
        let _ = ended.recv();
    });
    let namespace = told.recv().unwrap();
    ip(&format!("link add wan{link} type veth peer name far{link}"));
    ip(&format!("link set far{link} netns {namespace}"));
    ip(&format!("link set wan{link} up"));
    ip(&format!("address add 198.51.{link}.2/24 dev wan{link}"));
    ip(&format!("-6 address add 2001:db8:{link}::2/64 dev wan{link} nodad"));
    ip(&format!("route add default via 198.51.{link}.1 metric {link}"));
    ip(&format!("-6 route add default via 2001:db8:{link}::1 metric {link}"));
    // The check of a reply's way back knows no mark.
    for device in [&format!("wan{link}"), "all"] {
        std::fs::write(format!("/proc/sys/net/ipv4/conf/{device}/rp_filter"), "0").unwrap();
    }
    go.send(()).unwrap();
    is_ready.recv().unwrap();
    end
}

#[test]
fn a_query_leaves_over_the_wan_link_that_asks() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: needs root to make network namespaces");
        return;
    }
    let by_link = thread::spawn(|| {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).unwrap();
        ip("link set lo up");
        let _first = attach_internet(1, |query, _, _| Some(reply(query, NO_ERROR, A, &[[192, 0, 2, 1]])));
        let _second = attach_internet(2, |query, _, _| Some(reply(query, NO_ERROR, A, &[[192, 0, 2, 2]])));
        let over = |link: u8, fwmark| Asker {
            source: Some(Ipv4Addr::new(198, 51, link, 2)),
            interface: Some(format!("wan{link}")),
            fwmark,
            ..asker()
        };
        let all = || SERVER.map(|server| [1, 2].map(|link| ask(SocketAddr::new(server, 53), over(link, Some(0xdd)))));
        let privileged = all();
        // Whatever has no mark gets nowhere.
        ip("rule add priority 100 fwmark 0xdd lookup main");
        ip("rule add priority 101 blackhole");
        let marked = ask(SocketAddr::new(SERVER[0], 53), over(2, Some(0xdd)));
        ip("rule del priority 101");
        // On this host, or inside the site, the way is routing's affair.
        ip("address add 203.0.113.53/32 dev lo");
        let here =
            serve(SocketAddr::new(SERVER[0], 53), |query, _, _| Some(reply(query, NO_ERROR, A, &[[192, 0, 2, 3]])));
        let local = ask(here, over(2, None));
        ip("address del 203.0.113.53/32 dev lo");
        let inside = Asker { inside: Arc::new(["203.0.113.0/24".parse().unwrap()]), ..over(2, None) };
        let routed = ask(here, inside);
        // SAFETY: plain numbers; the bare call changes this thread's user alone, unlike libc's.
        assert_eq!(unsafe { libc::syscall(libc::SYS_setresuid, 65_534, 65_534, 65_534) }, 0);
        (privileged, marked, local, routed, all())
    });
    let (privileged, marked, local, routed, unprivileged) = by_link.join().unwrap();
    let expected = [1, 2].map(|link| Ok(vec![Ipv4Addr::new(192, 0, 2, link)]));
    assert_eq!(privileged, [expected.clone(), expected.clone()]);
    assert_eq!(marked, expected[1]);
    assert_eq!(local, Ok(vec![Ipv4Addr::new(192, 0, 2, 3)]));
    assert_eq!(routed, expected[0]);
    assert_eq!(unprivileged, [expected.clone(), expected]);
}
