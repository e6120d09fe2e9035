use std::io;
use std::net::{Ipv4Addr, UdpSocket};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::thread::{self, JoinHandle};
use std::{env, fs, process};

use tokio::sync::oneshot;

use super::address_block::AddressBlock;
use super::clock::Clock;
use super::plans;
use super::relay::Direction;
use super::scenery::{BROWNOUT, DSL, FIBRE, LINKS, POPS, PRIMARY_POP};
use super::timeline::Act;
use super::traffic::{LanTraffic, ServiceTraffic};
use super::wan::{Wan, WanLink};
use crate::control::{BindError, Server};
use crate::daemon::{Node, Parts};
use crate::edge::{Plan, SiteStatus};
use crate::model::{Secret, UnderlayId};
use crate::net::{self, HostSide, MemorySite, Names, SiteDevice, StaticNames, memory_site};

/// Everything of a run but its script: the edge and the PoPs, which are the product itself, the
/// WAN between them, and the networks behind them.
///
/// The fields end in this order: the nodes first, while the WAN still carries their farewells.
pub struct World {
    _answering: Answering,
    branch: Node,
    _pops: Vec<Node>,
    _services: ServiceTraffic,
    pub wan: Wan,
    /// Where `trefoil status` finds the branch.
    pub control_socket: PathBuf,
    lan: HostSide,
    clock: Clock,
    _directory: Directory,
}

#[derive(thiserror::Error, Debug)]
pub enum WorldError {
    #[error("cannot set up the demo: {0}")]
    System(#[from] io::Error),
    #[error("the system gave no random numbers: {0}")]
    Chance(getrandom::Error),
    #[error("{0}")]
    Socket(#[from] BindError),
    #[error("the demo needs the loopback interface, which carries nothing: {0} (ip link set lo up)")]
    Loopback(io::Error),
    #[error("cannot write the output: {0}")]
    Output(io::Error),
    #[error("the branch has stopped")]
    BranchStopped,
    #[error("found no free loopback addresses and ports")]
    NoAddresses,
    #[error("cannot start {name}: {reason}")]
    Node { name: String, reason: io::Error },
}

/// Packets that a site device holds each way: what the fastest link carries in half a second.
const SITE_CAPACITY: usize = 2048;

/// Blocks of addresses that are tried before giving up: more than demos fit on one machine.
const ADDRESS_ATTEMPTS: u16 = 200;

impl World {
    pub fn start(clock: Clock, seed: u64) -> Result<World, WorldError> {
        let mut random = [0; 36];
        getrandom::fill(&mut random).map_err(WorldError::Chance)?;
        let [a, b, c, d, key @ ..] = random;
        let psk = Secret::new(key.to_vec());
        check_loopback().map_err(WorldError::Loopback)?;
        let directory = Directory::create()?;
        let (block, wan) = claim(u32::from_be_bytes([a, b, c, d]), clock, seed)?;

        let mut pops = Vec::new();
        let mut behind_pops = Vec::new();
        for (number, pop) in (0u8..).zip(&POPS) {
            let (site, hosts) = memory_site(SITE_CAPACITY)?;
            let plan = plans::pop(number, pop, block, &psk, &directory.path);
            pops.push(node(plan, site, StaticNames::default())?);
            behind_pops.push(hosts);
        }
        let services = ServiceTraffic::start(behind_pops, clock, seed)?;
        let (site, lan) = memory_site(SITE_CAPACITY)?;
        let plan = plans::branch(block, &psk, &directory.path);
        let control_socket = plan.control_socket.clone();
        let branch = node(plan, site, names(block))?;
        Ok(World {
            _answering: Answering::start(&control_socket, &branch)?,
            branch,
            _pops: pops,
            _services: services,
            wan,
            control_socket,
            lan,
            clock,
            _directory: directory,
        })
    }

    /// Does to the WAN what the act says.
    pub fn play(&self, act: Act) {
        match act {
            Act::Start | Act::Calm => {}
            Act::FibreBrownout => self.set(FIBRE, LINKS[FIBRE].in_trouble(BROWNOUT)),
            Act::FibreRecovers => self.set(FIBRE, LINKS[FIBRE].usual()),
            Act::DslCut => self.wan.cut(DSL),
            Act::DslBack => self.wan.restore(DSL),
            Act::PopLost => self.wan.cut_pop(PRIMARY_POP),
            Act::PopBack => self.wan.restore_pop(PRIMARY_POP),
        }
    }

    pub fn start_traffic(&self, seed: u64) -> Result<LanTraffic, WorldError> {
        Ok(LanTraffic::start(self.lan.clone(), self.clock, seed)?)
    }

    /// Of the branch.
    pub fn status(&self) -> Result<SiteStatus, WorldError> {
        self.branch.status().ok_or(WorldError::BranchStopped)
    }

    fn set(&self, link: usize, model: WanLink) {
        self.wan.set(link, Direction::Up, model.up);
        self.wan.set(link, Direction::Down, model.down);
    }
}

/// The WAN is whole again at the end, so that no node waits in vain for an answer to its farewell.
impl Drop for World {
    fn drop(&mut self) {
        for act in [Act::FibreRecovers, Act::DslBack, Act::PopBack] {
            self.play(act);
        }
    }
}

/// Finds a block of addresses for this run and takes it by starting the WAN there.
fn claim(salt: u32, clock: Clock, seed: u64) -> Result<(AddressBlock, Wan), WorldError> {
    let links: Vec<WanLink> = LINKS.iter().map(|line| line.usual()).collect();
    let (link_count, pop_count) = (LINKS.len() as u8, POPS.len() as u8);
    for attempt in 0..ADDRESS_ATTEMPTS {
        let block = AddressBlock::nth(attempt, salt);
        match Wan::start(block, &links, pop_count, clock, seed) {
            Ok(wan) if block.is_free_for(link_count, pop_count) => return Ok((block, wan)),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error.into()),
        }
    }
    Err(WorldError::NoAddresses)
}

fn node(plan: Plan, site: MemorySite, names: StaticNames) -> Result<Node, WorldError> {
    let name = plan.site.name.clone();
    let parts = Parts {
        site: SiteDevice::Memory(site),
        names: Names::Static(names),
        clock: net::Clock::new(),
        fwmark: None,
        key_log: None,
        addresses: None,
        lan: None,
        breakouts: None,
        events: None,
    };
    Node::start(plan, parts).map_err(|reason| WorldError::Node { name, reason })
}

/// A PoP's name has one answer on each WAN link: the relay of that link.
fn names(block: AddressBlock) -> StaticNames {
    let names = StaticNames::default();
    for (number, pop) in (0u8..).zip(&POPS) {
        for (link, _) in (0u8..).zip(&LINKS) {
            names.set(pop.name, UnderlayId(link.into()), vec![block.relay(link, number)]);
        }
    }
    names
}

/// The branch's control socket at work, so that `trefoil status` can be asked meanwhile.
struct Answering {
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Answering {
    fn start(socket: &Path, branch: &Node) -> Result<Answering, WorldError> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let server = {
            let _context = runtime.enter();
            Server::bind(socket)?
        };
        let (stop, stopped) = oneshot::channel();
        let calls = branch.calls();
        let thread = thread::Builder::new().name("status".into()).spawn(move || {
            runtime.block_on(async {
                tokio::select! {
                    () = server.serve(calls) => {}
                    _ = stopped => {}
                }
            });
        })?;
        Ok(Answering { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // Closing the channel is the sign.
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            // A panic there has been printed already.
            let _panicked = thread.join();
        }
    }
}

/// All of the demo's WAN is loopback; where it is down, nothing would come up for a reason that
/// nobody sees.
fn check_loopback() -> io::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0))?;
    socket.send_to(&[], socket.local_addr()?).map(|_| ())
}

/// A directory of this run's own for the control sockets, gone when the run is.
struct Directory {
    path: PathBuf,
}

impl Directory {
    fn create() -> io::Result<Directory> {
        let path = env::temp_dir().join(format!("trefoil-demo-{}", process::id()));
        // Left by a killed process that had the same number.
        let _absent = fs::remove_dir_all(&path);
        let failed = |error: io::Error| io::Error::new(error.kind(), format!("{}: {error}", path.display()));
        fs::DirBuilder::new().mode(0o700).create(&path).map_err(failed)?;
        Ok(Directory { path })
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // Nothing in it is needed by anybody.
        let _left_behind = fs::remove_dir_all(&self.path);
    }
}
