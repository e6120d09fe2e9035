//! Damage in what receive offload gives: each bad datagram costs only itself.

use std::net::Ipv4Addr;
use std::os::fd::AsRawFd;

use trefoil::model::{Chance, DropReason, Leg, Spi, UnderlayId};
use trefoil::net::{MultiMessage, RunLimits, UnderlaySockets};
use trefoil::packet::Train;

use super::gate::{FIRST, Gate, numbered, open, sealed, train, trains, waiting};
use super::namespace::{Namespace, join};
use super::world;

const HERE: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 1);
const THERE: Ipv4Addr = Ipv4Addr::new(127, 0, 2, 2);

/// Data bytes of each packet, and packets of a train as full as the kernel makes them.
const DATA: usize = 1_300;
const FULL: usize = 44;

struct Peer {
    sockets: UnderlaySockets,
    calls: MultiMessage,
    limits: RunLimits,
}

impl Peer {
    fn open(address: Ipv4Addr) -> Peer {
        Peer { sockets: open(address, 1), calls: MultiMessage::default(), limits: RunLimits::default() }
    }

    fn leg_to(&self, gate: &Gate) -> Leg {
        Leg { underlay: UnderlayId(0), natt: true, local: self.sockets.local(true), remote: gate.address }
    }

    fn send(&mut self, trains: &[Train]) {
        let refuse = &mut |unsent| panic!("{unsent:?}");
        self.sockets.send(true, FIRST, &mut self.calls, &mut self.limits, trains, refuse);
    }
}

/// What can be done to a datagram without changing its length.
#[derive(Clone, Copy, Debug)]
enum Damage {
    FlippedBit,
    FlippedTag,
    /// A sequence number far ahead, which must not move the window.
    FalseSequence,
    OtherSpi,
    Noise,
    Replay,
    /// Marked as IKE, which is for control to refuse.
    FalseIke,
    /// Authentic, with an inner packet that claims to be longer than it is.
    BrokenInside,
}

const DAMAGES: [(Damage, Option<DropReason>); 8] = [
    (Damage::FlippedBit, Some(DropReason::BadTag)),
    (Damage::FlippedTag, Some(DropReason::BadTag)),
    (Damage::FalseSequence, Some(DropReason::BadTag)),
    (Damage::OtherSpi, Some(DropReason::UnknownSpi)),
    (Damage::Noise, Some(DropReason::UnknownSpi)),
    (Damage::Replay, Some(DropReason::Replayed)),
    (Damage::FalseIke, None),
    (Damage::BrokenInside, Some(DropReason::BadInner)),
];

/// What may stand behind the equal ones, being shorter.
#[derive(Clone, Copy, Debug)]
enum Last {
    Whole,
    CutShort,
    Runt,
    Ike,
}

const LASTS: [(Last, Option<DropReason>); 4] = [
    (Last::Whole, None),
    (Last::CutShort, Some(DropReason::BadTag)),
    (Last::Runt, Some(DropReason::NotIpsec)),
    (Last::Ike, None),
];

const IKE: [u8; 90] = [0x77; 90];

#[test]
fn damaged_forged_and_cut_datagrams_of_a_super_buffer_cost_only_themselves() {
    let mut peer = Peer::open(THERE);
    let mut gate = Gate::open(HERE, peer.sockets.local(true));
    let (sa, mut chance) = (world::outbound_sa(), Chance::from_number(7));
    let (mut number, mut dropped) = (0, Vec::new());
    for round in 0..64 {
        let (last, last_reason) = LASTS[round % LASTS.len()];
        let mut datagrams: Vec<Vec<u8>> = Vec::new();
        let mut good = Vec::new();
        let mut false_ike = 0;
        for place in 0..FULL {
            number += 1;
            let inner = numbered(9, number, DATA, true);
            // The first of a train is whole, so that there is something to repeat.
            let damage = (place > 0 && chance.below(3) == 0).then(|| DAMAGES[chance.below(8) as usize]);
            datagrams.push(match damage {
                None => {
                    good.push(number);
                    sealed(&sa, &inner)
                }
                Some((damage, reason)) => {
                    dropped.extend(reason);
                    false_ike += usize::from(reason.is_none());
                    damaged(damage, &inner, &datagrams[0], &sa, &mut chance)
                }
            });
        }
        number += 1;
        let shorter = sealed(&sa, &numbered(9, number, DATA - 100, true));
        datagrams.push(match last {
            Last::Whole => {
                good.push(number);
                shorter
            }
            Last::CutShort => shorter[..shorter.len() - 40].to_vec(),
            Last::Runt => vec![0x77; 3],
            Last::Ike => [&[0; 4], &IKE[..]].concat(),
        });
        dropped.extend(last_reason);
        peer.send(&[train(peer.leg_to(&gate), &datagrams)]);
        assert_eq!(gate.delivered(), good, "round {round}, {last:?}");
        let told = gate.ike();
        assert_eq!(told.len(), false_ike + usize::from(matches!(last, Last::Ike)), "round {round}");
        assert!(!matches!(last, Last::Ike) || told.last().is_some_and(|message| message == &IKE));
    }
    for (reason, count) in gate.drops() {
        assert_eq!(dropped.iter().filter(|one| **one == reason).count() as u64, count, "{reason:?}");
    }
    assert_eq!(gate.drops().iter().map(|(_, count)| *count).sum::<u64>(), dropped.len() as u64);
    println!("{number} datagrams in 64 super-buffers, of which {:?}", gate.drops());
}

fn damaged(
    damage: Damage,
    inner: &[u8],
    earlier: &[u8],
    sa: &trefoil::esp::OutboundSa,
    chance: &mut Chance,
) -> Vec<u8> {
    let mut datagram = match damage {
        Damage::BrokenInside => {
            let mut inner = inner.to_vec();
            inner[2..4].copy_from_slice(&u16::MAX.to_be_bytes());
            sealed(sa, &inner)
        }
        _ => sealed(sa, inner),
    };
    let length = datagram.len();
    let encrypted = 16..length - 16;
    match damage {
        Damage::FlippedBit => {
            let place = encrypted.start + chance.below(encrypted.len() as u32) as usize;
            datagram[place] ^= 1 << chance.below(8);
        }
        Damage::FlippedTag => datagram[length - 1] ^= 0x80,
        Damage::FalseSequence => datagram[4..8].copy_from_slice(&0x7fff_0000_u32.to_be_bytes()),
        Damage::OtherSpi => datagram[..4].copy_from_slice(&Spi::of_slot(1, 2).0.to_be_bytes()),
        Damage::Noise => {
            chance.fill(&mut datagram);
            // A place that no table has.
            datagram[0] = 0xff;
        }
        Damage::Replay => datagram.copy_from_slice(earlier),
        Damage::FalseIke => datagram[..4].fill(0),
        Damage::BrokenInside => {}
    }
    datagram
}

#[test]
fn an_ike_message_that_the_kernel_appends_to_esp_is_told_from_it() {
    if !nix::unistd::geteuid().is_root() {
        println!("skipped: network namespaces need root");
        return;
    }
    let (near, far) = (Namespace::new("gro-a"), Namespace::new("gro-b"));
    join(&near, "gro", "192.0.2.1/24", &far, "gro", "192.0.2.2/24");
    // A device that sends super-packets whole has nothing to be joined.
    far.enter(|| set_offload("gro", TCP_SEGMENTATION, false));
    near.enter(|| set_offload("gro", RECEIVE, true));
    // Each of these packets comes by itself; a card would find several at once.
    let patience = "echo 2000000 > /sys/class/net/gro/gro_flush_timeout";
    assert!(near.run("sh", &["-c", patience]).status.success());
    let mut peer = far.enter(|| Peer::open(Ipv4Addr::new(192, 0, 2, 2)));
    let from = peer.sockets.local(true);
    let (sa, mut joined) = (world::outbound_sa(), 0);
    let ike = [&[0; 4], &IKE[..]].concat();

    // First a look at what the kernel makes of it: datagrams that were sent one by one.
    let bare = near.enter(|| open(Ipv4Addr::new(192, 0, 2, 1), 1));
    let to = |remote| Leg { underlay: UnderlayId(0), natt: true, local: from, remote };
    let one_by_one = |number: u32, leg| {
        let esp = (0..6).map(|index| sealed(&sa, &numbered(9, number + index, DATA, true)));
        esp.chain([ike.clone()]).map(|datagram| train(leg, &[datagram])).collect::<Vec<_>>()
    };
    let (mut calls, mut batch) = (MultiMessage::default(), trains(64));
    for round in 0..50 {
        peer.send(&one_by_one(round * 6, to(bare.local(true))));
        std::thread::sleep(std::time::Duration::from_millis(4));
        let behind_esp = |train: &Vec<Vec<u8>>| train.len() > 1 && train.last() == Some(&ike);
        joined += waiting(&bare, &mut calls, &mut batch).iter().filter(|train| behind_esp(train)).count();
    }
    println!("in {joined} of 50 rounds the kernel has put the IKE message behind ESP");
    assert!(joined > 0, "this kernel joins nothing");

    let mut gate = near.enter(move || Gate::open(Ipv4Addr::new(192, 0, 2, 1), from));
    let leg = to(gate.address);
    for round in 100..150 {
        peer.send(&one_by_one(round * 6, leg));
        let (mut delivered, mut told) = (Vec::new(), Vec::new());
        while told.is_empty() || delivered.len() < 6 {
            delivered.extend(gate.delivered());
            told.extend(gate.ike());
        }
        assert_eq!((delivered, told), ((round * 6..round * 6 + 6).collect(), vec![IKE.to_vec()]));
    }
    assert_eq!(gate.drops(), []);
}

// Of <linux/ethtool.h>.
const TCP_SEGMENTATION: u32 = 0x1f;
const RECEIVE: u32 = 0x2c;

/// `ethtool -K`, in the namespace of the calling thread.
fn set_offload(name: &str, command: u32, on: bool) {
    #[repr(C)]
    struct Value {
        command: u32,
        data: u32,
    }
    #[repr(C)]
    struct Request {
        name: [u8; 16],
        value: *mut Value,
        rest: [u8; 16],
    }
    const SIOCETHTOOL: libc::Ioctl = 0x8946;
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").expect("a socket");
    let mut value = Value { command, data: on.into() };
    let mut request = Request { name: [0; 16], value: &raw mut value, rest: [0; 16] };
    request.name[..name.len()].copy_from_slice(name.as_bytes());
    // SAFETY: the request has the layout of `struct ifreq`, 40 bytes, and points at a `struct
    // ethtool_value`; both live until the call is over.
    let outcome = unsafe { libc::ioctl(socket.as_raw_fd(), SIOCETHTOOL, &raw mut request) };
    assert_eq!(outcome, 0, "{}", std::io::Error::last_os_error());
}
