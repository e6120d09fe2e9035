use std::time::Duration;

use crate::config::{self, LineShape, Scenario, ScenarioEvent, ScenarioLink, Where};
use crate::lab::impairment::{Burst, Impairment, LinkModel, NetworkLoss};
use crate::lab::relay::Direction;
use crate::model::{Moment, Role};

/// All there is between a site and its PoPs, as a scenario tells it. The scenario begins at a moment
/// of its own, so that tunnels are up by then.
pub struct Field {
    links: Vec<Link>,
    events: Vec<ScenarioEvent>,
    pub begins: Moment,
}

/// A way from the site: over a link to a PoP, by their numbers.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Way {
    pub link: usize,
    /// An even number is of a primary role.
    pub pop: usize,
}

/// No PoP: outside of the tunnels.
const OUTSIDE: usize = usize::MAX;

struct Link {
    usual: [LineShape; 2],
    lines: [Impairment; 2],
}

impl Way {
    /// By a link itself.
    pub const fn outside(link: usize) -> Way {
        Way { link, pop: OUTSIDE }
    }

    pub const fn is_outside(self) -> bool {
        self.pop == OUTSIDE
    }

    pub const fn role(self) -> Role {
        if self.pop.is_multiple_of(2) { Role::Primary } else { Role::Secondary }
    }
}

impl Field {
    pub fn new(scenario: &Scenario, begins: Moment) -> Field {
        let link = |(number, link): (u64, &ScenarioLink)| {
            let usual = [link.up, link.down];
            let line = |shape, direction: Direction| {
                // Far apart, so that neighbouring seeds share no line's randomness.
                let seed = scenario.seed.wrapping_mul(1_000).wrapping_add(2 * number + direction.index() as u64);
                Impairment::new(model(shape), seed)
            };
            Link { usual, lines: Direction::ALL.map(|direction| line(usual[direction.index()], direction)) }
        };
        let links = (0..).zip(&scenario.links).map(link).collect();
        Field { links, events: scenario.events.clone(), begins }
    }

    /// The lines become what they are at this moment.
    pub fn follow(&mut self, now: Moment) {
        let Field { links, events, begins } = self;
        for (number, link) in links.iter_mut().enumerate() {
            for direction in Direction::ALL {
                let mut shape = link.usual[direction.index()];
                let on_it = events.iter().filter(|event| event.place == Where::Link(number));
                for event in on_it.filter(|event| concerns(event, direction)) {
                    if let Some(since) = going_on(*begins, event, now) {
                        alter(&mut shape, event, since);
                    }
                }
                link.lines[direction.index()].set_model(model(shape));
            }
        }
    }

    /// One packet of so many bytes on the line, headers included: when it arrives, or `None`.
    pub fn send(&mut self, way: Way, direction: Direction, bytes: usize, now: Moment) -> Option<Moment> {
        let open = self.is_open(way, direction, now);
        let line = self.line(way.link, direction).filter(|_| open)?;
        let arrives = line.handle_packet(bytes, now).ok()?;
        // What is on its way when the line is cut is lost.
        self.is_open(way, direction, arrives).then_some(arrives)
    }

    /// Many packets of a size at once.
    pub fn send_many(
        &mut self,
        way: Way,
        direction: Direction,
        (packets, bytes): (u32, usize),
        now: Moment,
    ) -> Result<Burst, NetworkLoss> {
        let open = self.is_open(way, direction, now);
        let line = self.line(way.link, direction).filter(|_| open).ok_or(NetworkLoss::Cut)?;
        let burst = line.handle_burst(packets, bytes, now)?;
        if self.is_open(way, direction, burst.arrives) { Ok(burst) } else { Err(NetworkLoss::Cut) }
    }

    /// Does it carry anything at this moment, which may lie ahead?
    pub fn is_open(&self, way: Way, direction: Direction, at: Moment) -> bool {
        !self.events.iter().any(|event| {
            event.change.cut
                && concerns(event, direction)
                && match event.place {
                    Where::Link(link) => link == way.link,
                    Where::Pop(role) => !way.is_outside() && role == way.role(),
                }
                && going_on(self.begins, event, at).is_some()
        })
    }

    /// How long a packet would take at present.
    pub fn delay(&self, way: Way, direction: Direction, now: Moment) -> Duration {
        self.links.get(way.link).map_or(Duration::MAX, |link| {
            let line = &link.lines[direction.index()];
            line.backlog(now) + line.model().delay + line.model().jitter / 2
        })
    }

    /// What a line does at present.
    pub fn line_model(&self, link: usize, direction: Direction) -> Option<LinkModel> {
        self.links.get(link).map(|link| link.lines[direction.index()].model())
    }

    fn line(&mut self, link: usize, direction: Direction) -> Option<&mut Impairment> {
        self.links.get_mut(link).map(|link| &mut link.lines[direction.index()])
    }
}

/// Before the scenario begins nothing happens.
fn going_on(begins: Moment, event: &ScenarioEvent, at: Moment) -> Option<Duration> {
    if at < begins { None } else { event.going_on(at.since(begins)) }
}

fn concerns(event: &ScenarioEvent, direction: Direction) -> bool {
    match event.direction {
        config::Direction::Both => true,
        config::Direction::Up => direction == Direction::Up,
        config::Direction::Down => direction == Direction::Down,
    }
}

fn alter(shape: &mut LineShape, event: &ScenarioEvent, since: Duration) {
    let change = &event.change;
    shape.loss = change.loss.unwrap_or(shape.loss);
    shape.delay = change.delay.unwrap_or(shape.delay);
    shape.jitter = change.jitter.unwrap_or(shape.jitter);
    shape.queue = change.queue.unwrap_or(shape.queue);
    shape.rate = change.rate.unwrap_or(shape.rate);
    if let Some(trace) = &change.trace {
        let step = usize::try_from(since.as_nanos() / trace.step.as_nanos().max(1)).unwrap_or(usize::MAX);
        shape.rate = trace.rates.get(step % trace.rates.len().max(1)).copied().unwrap_or(shape.rate);
    }
}

fn model(shape: LineShape) -> LinkModel {
    let LineShape { rate, delay, jitter, loss, queue } = shape;
    LinkModel { delay, jitter, loss, rate, queue }
}
