use std::future::ready;
use std::io;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::packet_route::link::{LinkAttribute, LinkFlags, LinkMessage};
use rtnetlink::{Handle, MulticastGroup};

/// Tells when a network interface of this host begins or ceases to carry packets.
pub struct LinkWatch {
    changes: Pin<Box<dyn Stream<Item = LinkChange> + Send>>,
    /// Without it the connection would end.
    _handle: Handle,
}

/// What the kernel says of an interface whose state may have changed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct LinkChange {
    pub interface: String,
    /// It is there, up, and has a carrier.
    pub carries: bool,
}

impl LinkWatch {
    /// Needs a tokio runtime.
    pub fn open() -> io::Result<LinkWatch> {
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&[MulticastGroup::Link])?;
        tokio::spawn(connection);
        let changes = messages.filter_map(|(message, _)| ready(read(message)));
        Ok(LinkWatch { changes: Box::pin(changes), _handle: handle })
    }

    /// The next change; `None` when there will be none any more.
    pub async fn next(&mut self) -> Option<LinkChange> {
        self.changes.next().await
    }
}

fn read(message: NetlinkMessage<RouteNetlinkMessage>) -> Option<LinkChange> {
    match message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => {
            let carries = link.header.flags.contains(LinkFlags::Up | LinkFlags::Running);
            Some(LinkChange { interface: name(link)?, carries })
        }
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelLink(link)) => {
            Some(LinkChange { interface: name(link)?, carries: false })
        }
        _ => None,
    }
}

fn name(link: LinkMessage) -> Option<String> {
    link.attributes.into_iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name),
        _ => None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::namespace::{Namespace, ip};
    use super::*;
    use std::time::Duration;

    #[test]
    fn an_interface_that_goes_down_or_loses_its_carrier_is_told_of() {
        let Some(namespace) = Namespace::new() else { return };
        namespace.run(|| {
            ip("link add lw0 type veth peer name lw1");
            ip("link set lw0 up");
            ip("link set lw1 up");
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
            runtime.block_on(async {
                let mut watch = LinkWatch::open().unwrap();
                let mut told = async |interface: &str, carries: bool| {
                    let wanted = LinkChange { interface: interface.to_owned(), carries };
                    let found = async { while watch.next().await.as_ref() != Some(&wanted) {} };
                    tokio::time::timeout(Duration::from_secs(20), found).await.expect(interface);
                };
                // The other end takes the carrier away.
                ip("link set lw1 down");
                told("lw0", false).await;
                ip("link set lw1 up");
                told("lw0", true).await;
                ip("link set lw0 down");
                told("lw0", false).await;
                ip("link delete lw0");
                told("lw1", false).await;
            });
        });
    }
}
