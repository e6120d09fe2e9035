use std::future::pending;
use std::io;
use std::os::fd::AsRawFd;

use nix::errno::Errno;
use nix::sys::socket::{AddressFamily, NetlinkAddr, SockFlag, SockProtocol, SockType, bind, socket};
use tokio::net::UdpSocket;

/// Of `linux/netfilter/nfnetlink.h`: who hears of changes of nftables.
const NFNLGRP_NFTABLES: u32 = 7;
/// Of `nf_tables.h`, with the number of its subsystem: a table is gone.
const TABLE_REMOVED: u16 = 10 << 8 | 2;

/// The kernel puts what changes together into messages of a page or two.
const ROOM: usize = 32_768;

const HEADER: usize = 16;

/// Hears of nftables tables that are removed, by whoever: a firewall that is loaded anew takes all of them along.
pub(super) struct NftWatch {
    /// Of netlink, which is read like one of UDP.
    socket: UdpSocket,
    room: Vec<u8>,
}

impl NftWatch {
    /// Needs a tokio runtime.
    pub fn open() -> io::Result<NftWatch> {
        let flags = SockFlag::SOCK_NONBLOCK | SockFlag::SOCK_CLOEXEC;
        let socket = socket(AddressFamily::Netlink, SockType::Raw, flags, SockProtocol::NetlinkNetFilter)?;
        bind(socket.as_raw_fd(), &NetlinkAddr::new(0, 1 << (NFNLGRP_NFTABLES - 1)))?;
        Ok(NftWatch { socket: UdpSocket::from_std(socket.into())?, room: vec![0; ROOM] })
    }

    /// Returns when some table was removed, perhaps not one of ours.
    pub async fn removed(&mut self) {
        loop {
            match self.socket.recv(&mut self.room).await {
                Ok(length) if self.room.get(..length).is_some_and(tells_of_removal) => return,
                Ok(_) => {}
                // There was more than we could hear.
                Err(error) if error.raw_os_error() == Some(Errno::ENOBUFS as i32) => return,
                Err(_) => return pending().await,
            }
        }
    }
}

fn tells_of_removal(mut messages: &[u8]) -> bool {
    while let Some(header) = messages.first_chunk::<HEADER>() {
        let [a, b, c, d, low, high, ..] = *header;
        if u16::from_ne_bytes([low, high]) == TABLE_REMOVED {
            return true;
        }
        let length = u32::from_ne_bytes([a, b, c, d]) as usize;
        let Some(rest) = messages.get(length.max(HEADER).next_multiple_of(4)..) else { return false };
        messages = rest;
    }
    false
}

#[cfg(test)]
mod tests {
    use std::process::Command;
    use std::time::Duration;

    use super::super::namespace::Namespace;
    use super::*;

    #[test]
    fn a_table_that_is_removed_is_heard_of_and_one_that_comes_is_not() {
        let Some(namespace) = Namespace::new() else { return };
        namespace.run(|| {
            let nft = |arguments: &str| {
                assert!(Command::new("nft").args(arguments.split(' ')).status().unwrap().success(), "{arguments}");
            };
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut watch = NftWatch::open().unwrap();
                let mut heard = async |patience| {
                    tokio::time::timeout(Duration::from_millis(patience), watch.removed()).await.is_ok()
                };
                for name in ["one", "two"] {
                    nft(&format!("add table ip {name}"));
                    nft(&format!("add chain ip {name} last"));
                }
                assert!(!heard(200).await);
                nft("delete table ip one");
                assert!(heard(20_000).await);
                nft("flush ruleset");
                assert!(heard(20_000).await);
            });
        });
    }

    #[test]
    fn messages_that_end_early_or_say_wrong_lengths_are_no_news() {
        let header = |length: u32, kind: u16| [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
        assert!(tells_of_removal(&header(16, TABLE_REMOVED)));
        assert!(tells_of_removal(&[header(20, 1), vec![0; 4], header(20, TABLE_REMOVED)].concat()));
        for other in [
            vec![],
            vec![7; 15],
            header(0, 1),
            header(u32::MAX, 1),
            header(18, 1),
            [header(0, 1), header(0, 2)].concat(),
        ] {
            assert!(!tells_of_removal(&other), "{other:?}");
        }
    }
}
