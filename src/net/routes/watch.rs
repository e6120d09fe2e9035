use std::future::{pending, ready};
use std::io;
use std::pin::Pin;

use futures_util::{Stream, StreamExt};
use rtnetlink::packet_core::{NetlinkMessage, NetlinkPayload};
use rtnetlink::packet_route::RouteNetlinkMessage;
use rtnetlink::{Handle, MulticastGroup};

use super::rule::{OUR_PROTOCOL, Rule};
use super::table;
use crate::edge::RoutePlan;

/// Tells when rules or routes of ours may have been removed, by whoever.
pub struct RouteWatch {
    removals: Pin<Box<dyn Stream<Item = ()> + Send>>,
    /// Without it the connection would end.
    _handle: Handle,
}

impl RouteWatch {
    /// Needs a tokio runtime.
    pub fn open(plan: &RoutePlan, device_index: u32) -> io::Result<RouteWatch> {
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Rule,
            MulticastGroup::Ipv6Rule,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
        tokio::spawn(connection);
        let ours = plan.table;
        let removals =
            messages.filter_map(move |(message, _)| ready(concerns(&message, ours, device_index).then_some(())));
        Ok(RouteWatch { removals: Box::pin(removals), _handle: handle })
    }

    /// Returns when some may be gone, perhaps by our own doing.
    pub async fn removed(&mut self) {
        if self.removals.next().await.is_none() {
            pending().await
        }
    }
}

fn concerns(message: &NetlinkMessage<RouteNetlinkMessage>, ours: u32, device_index: u32) -> bool {
    match &message.payload {
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRule(rule)) => Rule::is_ours(rule),
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::DelRoute(route)) => {
            route.header.protocol == OUR_PROTOCOL && table(route) == ours
        }
        // A device that goes down takes its IPv4 routes along without a word of them, and may have come up again.
        NetlinkPayload::InnerMessage(RouteNetlinkMessage::NewLink(link)) => link.header.index == device_index,
        _ => false,
    }
}
