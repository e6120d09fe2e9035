use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener};

use super::RULE_PRIORITIES;
use crate::edge::RoutePlan;

/// What only one process may use at a time: the device, the table and the rules' priorities of a plan. Held until
/// it is dropped, or the process ends in whatever way.
///
/// Each is the name of an abstract Unix socket, since these are per network namespace, as routes are, and need
/// no directory that all would have to know.
pub struct Claim {
    _held: Vec<UnixListener>,
}

impl Claim {
    pub fn take(plan: &RoutePlan) -> io::Result<Claim> {
        let priorities = plan.rule_priority..plan.rule_priority + RULE_PRIORITIES;
        let mut names = vec![format!("routes.device {}", plan.device), format!("routes.table {}", plan.table)];
        names.extend(priorities.map(|priority| format!("routes.rule_priority {priority}")));
        let held = names.iter().map(|name| hold(name)).collect::<io::Result<_>>()?;
        Ok(Claim { _held: held })
    }
}

fn hold(name: &str) -> io::Result<UnixListener> {
    let address = SocketAddr::from_abstract_name(format!("trefoil {name}"))?;
    UnixListener::bind_addr(&address).map_err(|error| match error.kind() {
        io::ErrorKind::AddrInUse => {
            io::Error::new(error.kind(), format!("a running trefoil has {name} in this network namespace"))
        }
        _ => error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::edge::OnStop;
    use crate::net::routes::tests::in_namespace;

    fn plan(device: &str, table: u32, rule_priority: u32) -> RoutePlan {
        RoutePlan { device: device.to_owned(), table, rule_priority, on_stop: OnStop::Block }
    }

    #[test]
    fn what_one_has_no_other_gets_until_it_is_given_back() {
        in_namespace(|| {
            let first = Claim::take(&plan("claim0", 7_300, 7_310)).unwrap();
            for (other, told) in [
                (plan("claim0", 7_301, 7_320), "routes.device claim0"),
                (plan("claim1", 7_300, 7_320), "routes.table 7300"),
                (plan("claim1", 7_301, 7_305), "routes.rule_priority 7310"),
                (plan("claim1", 7_301, 7_315), "routes.rule_priority 7315"),
            ] {
                let refused = Claim::take(&other).err().expect(told).to_string();
                assert!(refused.contains(told), "{refused}");
            }
            let beside = Claim::take(&plan("claim1", 7_301, 7_316)).expect("nothing in common");
            drop((first, beside));
            Claim::take(&plan("claim0", 7_300, 7_311)).expect("given back");
        });
    }
}
