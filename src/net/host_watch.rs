use std::io;
use std::pin::Pin;

use futures_util::{FutureExt, Stream, StreamExt};
use rtnetlink::{Handle, MulticastGroup};

/// Tells that something has changed about this host's interfaces, addresses or routes.
pub struct HostWatch {
    pub(super) handle: Handle,
    changes: Pin<Box<dyn Stream<Item = ()> + Send>>,
}

impl HostWatch {
    /// Needs a tokio runtime.
    pub fn open() -> io::Result<HostWatch> {
        // An interface that goes down takes its IPv4 routes along without a word of them.
        let groups = [
            MulticastGroup::Link,
            MulticastGroup::Ipv4Ifaddr,
            MulticastGroup::Ipv6Ifaddr,
            MulticastGroup::Ipv4Route,
            MulticastGroup::Ipv6Route,
        ];
        let (connection, handle, messages) = rtnetlink::new_multicast_connection(&groups)?;
        tokio::spawn(connection);
        Ok(HostWatch { handle, changes: Box::pin(messages.map(|_| ())) })
    }

    /// Returns when something has changed, perhaps nothing of interest.
    pub async fn changed(&mut self) {
        if self.changes.next().await.is_none() {
            std::future::pending().await
        }
        // What came with it is looked at together.
        while let Some(Some(())) = self.changes.next().now_or_never() {}
    }
}
