use std::fmt;
use std::time::Duration;

use super::budget::ProbeBudget;
use super::doubt::{Doubt, Evidence, Inquired};
use super::habit::{Habit, Traffic};
use super::inner::MissingEcho;
use super::liveness::Liveness;
use super::sensitivity::Nerves;
use crate::model::Moment;

/// Between two probes of a burst while a verdict is withheld, and after it.
const SLOW_STEP: Duration = Duration::from_millis(100);
/// A suspicion that has led to nothing for so long is given up.
const GIVE_UP: Duration = Duration::from_secs(3);
/// So long the quick steps go on after the verdict: whoever acts on it for good waits this out.
const CONFIRMING: Duration = Duration::from_millis(100);
/// A path that answers so soon after the verdict had a short hole, and is judged more calmly.
const FALSE_ALARM: Duration = Duration::from_millis(500);
/// The same of a tunnel that could be set up anew at once.
const FALSE_ALARM_RESTART: Duration = Duration::from_secs(2);
/// Doublings of the probes of a verdict after as many false alarms; the most probes bound them too.
const MAX_CAUTION: u32 = 4;
/// One doubling is taken back after so long without a false alarm.
const CAUTION_FADES: Duration = Duration::from_secs(1_800);
/// A timer that comes later than this was kept from running, and so may be what it waits for.
const LATE: Duration = Duration::from_millis(20);
/// A request that costs the peer a Diffie-Hellman exchange is answered so much later.
const HEAVY_PATIENCE: Duration = Duration::from_millis(500);
/// An idle path is not judged before it was silent for so long: nothing hangs on it, and what others
/// send over its link may have made its answers late.
const IDLE_PATIENCE: Duration = Duration::from_millis(500);
/// Troubles of a path that lives all the same are believed once in so long.
const TROUBLE_PAUSE: Duration = Duration::from_secs(1);

/// What else than silence makes a path suspect, the surest first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Trouble {
    /// Its interface lost its carrier or went down.
    LinkDown,
    /// A router, or the peer's host, said that the peer cannot be reached.
    Unreachable,
    /// The system did not take a packet.
    SendFailed,
}

/// When other paths to the same peer last showed signs of life.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PeerSigns {
    /// An authentic ESP packet.
    pub esp: Option<Moment>,
    /// An answer of its IKE daemon.
    pub ike: Option<Moment>,
}

/// What the health of a path looks at besides its own probes.
pub struct Surroundings<'a> {
    /// Of the path itself.
    pub traffic: Traffic,
    pub peer: PeerSigns,
    pub budget: &'a mut ProbeBudget,
}

/// Watches a path for what is unusual, and then finds out quickly whether it lives: a suspicion
/// starts a burst of probes, any sign of life ends it, and enough unanswered ones make a verdict.
#[derive(Debug)]
pub(super) struct Alarm {
    nerves: Nerves,
    habit: Habit,
    burst: Option<Burst>,
    doubt: Doubt,
    /// The last sign of life of any kind.
    heard: Option<Moment>,
    /// The latest fact, of whatever kind: what follows from it is for later.
    told: Moment,
    /// The last time that a path that sends was asked, and when it may be asked again at the soonest where it
    /// could not be.
    asked: Moment,
    ask_next: Moment,
    /// IKE did not answer, but the path lived: its silence says nothing until it answers again.
    ike_is_mute: bool,
    /// The outstanding request is a costly one for the peer.
    heavy: bool,
    troubled: Option<Moment>,
    /// When the verdict fell.
    fell: Option<Moment>,
    /// When it fell although packets came in, which tell nothing of whether it was wrong.
    fell_in_doubt: Option<Moment>,
    caution: u32,
    cautious: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Burst {
    cause: Cause,
    /// The surest of what was told since, too: the kernel speaks of an interface when packets are missed already.
    told: Option<Trouble>,
    began: Moment,
    /// The next probe.
    next: Moment,
    /// It has its turn then; otherwise it asks for one.
    turn: bool,
    /// Our own lateness: no verdict before.
    not_before: Moment,
}

/// What is known of the path by inner probes.
#[derive(Clone, Copy, Debug)]
pub(super) struct Echoes {
    /// There is a target that may be asked in quick succession.
    pub asked: bool,
    pub missing: Option<MissingEcho>,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Cause {
    Silence(Duration),
    Late,
    Trouble(Trouble),
}

/// What is to be done now.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct Findings {
    /// Send a probe of each kind that tells whether the path lives.
    pub probe: bool,
    /// The path is dead, for this reason.
    pub dead: Option<String>,
}

/// What came in on the path.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Life {
    /// The peer's IKE daemon has answered.
    Ike,
    /// An inner probe was answered over the path.
    Echo,
    /// Anything else that is authentic. It proves one direction.
    Packet,
}

impl Alarm {
    pub fn new(nerves: Nerves, now: Moment) -> Alarm {
        Alarm {
            nerves,
            habit: Habit::new(nerves, now),
            burst: None,
            doubt: Doubt::new(nerves.step, now),
            heard: None,
            told: now,
            asked: now,
            ask_next: now,
            ike_is_mute: false,
            heavy: false,
            troubled: None,
            fell: None,
            fell_in_doubt: None,
            caution: 0,
            cautious: now,
        }
    }

    /// A tunnel that was set up anew.
    pub fn restart(&mut self, now: Moment) {
        let fell = self.fell.take().max(self.fell_in_doubt.take());
        if fell.is_some_and(|fell| now.since(fell) < FALSE_ALARM_RESTART) {
            self.beware(now);
        }
        self.habit.restart();
        self.doubt = Doubt::new(self.nerves.step, now);
        (self.burst, self.heard) = (None, None);
        (self.ike_is_mute, self.heavy) = (false, false);
    }

    pub fn hear(&mut self, life: Life, liveness: &Liveness, now: Moment) {
        self.heard = self.heard.max(Some(now));
        let fell = self.fell.take();
        match life {
            Life::Ike => {
                self.doubt.hear_ike(now);
                (self.ike_is_mute, self.heavy) = (false, false);
            }
            Life::Echo => self.doubt.hear_echo(now),
            Life::Packet => {}
        }
        let fell = if life == Life::Packet { fell } else { fell.max(self.fell_in_doubt.take()) };
        if life != Life::Packet && fell.is_some_and(|fell| now.since(fell) < FALSE_ALARM) {
            self.beware(now);
        }
        // As many unanswered probes would have made a verdict: that of the path they do not.
        if life != Life::Ike && self.fall_of(liveness, None).is_some_and(|at| at <= now) {
            self.ike_is_mute = true;
        }
        let Some(burst) = self.burst.take() else { return };
        match (burst.cause, life) {
            (Cause::Silence(silence), Life::Packet) => self.habit.resumed(silence + now.since(burst.began)),
            (Cause::Silence(_), Life::Ike | Life::Echo) => self.habit.ended(),
            (Cause::Late | Cause::Trouble(_), Life::Ike | Life::Echo | Life::Packet) => {}
        }
    }

    pub fn trouble(&mut self, trouble: Trouble, is_down: bool, now: Moment) {
        let believed = self.troubled.is_none_or(|troubled| now.since(troubled) >= TROUBLE_PAUSE);
        if self.burst.is_none() && !is_down && believed {
            self.troubled = Some(now);
            self.begin(Cause::Trouble(trouble), now);
        }
        if let Some(burst) = &mut self.burst {
            burst.told = Some(burst.told.map_or(trouble, |told| told.min(trouble)));
        }
    }

    /// The request that a probe has sent costs the peer a Diffie-Hellman exchange.
    pub fn ask_is_heavy(&mut self) {
        self.heavy = true;
    }

    /// What was asked at that moment was not sent after all.
    pub fn handle_unsent(&mut self, at: Moment) {
        if self.asked == at {
            (self.asked, self.ask_next) = (Moment::ZERO, at + self.nerves.step);
        }
    }

    /// `due` is when this was to be called.
    pub fn run(
        &mut self,
        liveness: &Liveness,
        around: &mut Surroundings,
        (due, now): (Moment, Moment),
        echoes: Echoes,
        is_down: bool,
    ) -> Findings {
        let inner = echoes.asked;
        let look = self.habit.look(around.traffic, now);
        if look.heard {
            self.hear(Life::Packet, liveness, around.traffic.last_in.unwrap_or(now).max(self.heard.unwrap_or(now)));
        }
        let late = now.since(due);
        let mut findings = Findings::default();
        if is_down {
            self.follow_up(&mut findings, around.budget, now);
            return findings;
        }
        if self.burst.is_none() {
            let overdue = self.overdue(liveness).is_some_and(|at| at <= now);
            match look.silence {
                Some(silence) => self.begin(Cause::Silence(silence), now),
                None if overdue => self.begin(Cause::Late, now),
                None => {}
            }
        }
        let ask = self.burst.is_none() && self.ask_at().is_some_and(|at| at <= now);
        let dead_at = self.dead_at(liveness, inner);
        let step = self.nerves.step;
        match &mut self.burst {
            Some(burst) => {
                if late > LATE {
                    burst.not_before = burst.not_before.max(now + late.min(FALSE_ALARM));
                }
                let (began, not_before) = (burst.began, burst.not_before);
                let enough = dead_at.is_some_and(|at| at <= now);
                let dead = enough && not_before <= now;
                if dead && withheld(around.peer, began) {
                    // Once its daemon answers somebody, it is given the time to answer here.
                    let patience = SLOW_STEP + liveness.prompt().unwrap_or_default();
                    burst.not_before = burst.not_before.max(now + patience);
                } else if dead {
                    findings.dead = Some(self.reason(liveness, now));
                    self.fell(now);
                }
                if now.since(began) >= GIVE_UP {
                    // Nothing comes of it: the steady probes judge.
                    self.burst = None;
                    self.ike_is_mute = true;
                    self.habit.ended();
                }
                // IKE may say nothing, or not yet: then haste is of no use.
                let futile = liveness.prompt().is_none() || self.ike_is_mute && !inner;
                self.step(&mut findings, around.budget, if enough || futile { SLOW_STEP } else { step }, now);
            }
            None if ask => {
                // The site's packets leave and nothing comes back, which may be how it should be.
                let waits = liveness.prompt().is_none() || liveness.oldest().is_some();
                let turn = if waits { Err(now + self.nerves.ask_after) } else { around.budget.turn_now(now) };
                match turn {
                    Ok(()) => self.asked = now,
                    Err(next) => self.ask_next = next,
                }
                findings.probe = turn.is_ok();
            }
            None => {}
        }
        if self.burst.is_none() && findings.dead.is_none() {
            self.look_into_doubt(&mut findings, liveness, echoes, around, (due, now));
        }
        findings
    }

    /// When `run` has something to do.
    pub fn next_event(&self, liveness: &Liveness, echoes: Echoes, is_down: bool) -> Moment {
        let look = self.habit.next_look();
        let Some(burst) = &self.burst else {
            let overdue = if is_down { None } else { self.overdue(liveness) };
            let ask = if is_down { None } else { self.ask_at() };
            let looked = self.habit.looked_at().max(self.told);
            let doubt = self.doubt.next_event(self.evidence(liveness, echoes), looked);
            let doubt = doubt.filter(|_| !is_down);
            return [overdue, ask, doubt].into_iter().flatten().fold(look, Moment::min);
        };
        let dead = self.dead_at(liveness, echoes.asked).filter(|_| !is_down).map(|at| at.max(burst.not_before));
        // One that is past is withheld: every further step looks again.
        let dead = dead.filter(|at| *at > self.habit.looked_at());
        look.min(burst.next).min(dead.unwrap_or(burst.next))
    }

    /// A suspicion is being looked into, and other paths to the peer are silent too.
    pub fn wants_witness(&self, liveness: &Liveness, peer: PeerSigns, now: Moment) -> bool {
        let began = self.burst.map(|burst| burst.began).or(self.doubt.began());
        let heard = self.heard.filter(|_| self.burst.is_some());
        began.is_some_and(|began| {
            let unanswered = liveness.unanswered(heard).next().zip(liveness.prompt());
            peer.ike.is_none_or(|ike| ike <= began) && unanswered.is_some_and(|(at, prompt)| at + prompt <= now)
        })
    }

    pub fn is_suspicious(&self) -> bool {
        self.burst.is_some()
    }

    /// The last sign of life, since the tunnel was set up.
    pub fn heard(&self) -> Option<Moment> {
        self.heard
    }

    /// The last answer to an inner probe, since the tunnel was set up.
    pub fn echoed(&self) -> Option<Moment> {
        self.doubt.echoed()
    }

    /// The verdict has stood so long that it may be acted upon for good.
    pub fn confirmed_at(&self) -> Option<Moment> {
        self.fell.map(|fell| fell + CONFIRMING)
    }

    /// Something has changed, such as who is watched.
    pub fn handle_fact(&mut self, now: Moment) {
        self.told = now;
    }

    /// The verdict has fallen, and with it is settled what else was in doubt.
    pub fn fell(&mut self, now: Moment) {
        self.fell.get_or_insert(now);
        self.doubt.drop_inquiry();
    }

    fn begin(&mut self, cause: Cause, now: Moment) {
        self.burst = Some(Burst { cause, told: None, began: now, next: now, turn: false, not_before: now });
    }

    /// Sends the burst's next probe, if its turn has come.
    fn step(&mut self, findings: &mut Findings, budget: &mut ProbeBudget, pace: Duration, now: Moment) {
        let Some(burst) = &mut self.burst else { return };
        if burst.next > now {
            return;
        }
        let turn = if burst.turn { now } else { budget.turn(now) };
        findings.probe = turn <= now;
        burst.turn = !findings.probe;
        burst.next = if findings.probe { now + pace } else { turn };
    }

    /// Is the way to the peer cut, while packets still come from there?
    fn look_into_doubt(
        &mut self,
        findings: &mut Findings,
        liveness: &Liveness,
        echoes: Echoes,
        around: &mut Surroundings,
        (due, now): (Moment, Moment),
    ) {
        let evidence = self.evidence(liveness, echoes);
        if !self.doubt.begins(evidence, now) {
            return;
        }
        let late = now.since(due);
        if late > LATE {
            self.doubt.withhold(now + late.min(FALSE_ALARM));
        }
        let enough = self.fall_of(liveness, None).is_some_and(|at| at <= now);
        match self.doubt.run(evidence, enough, around.peer.ike, around.budget, now) {
            Inquired::Goes { probe } => findings.probe |= probe,
            Inquired::Cut => {
                self.fell_in_doubt = Some(now);
                self.ike_is_mute = true;
                let unanswered = liveness.unanswered(None).count();
                findings.dead = Some(format!(
                    "{unanswered} probes were not answered although packets come in, and the peer answers over other tunnels"
                ));
            }
            Inquired::InVain => self.ike_is_mute = true,
        }
    }

    fn evidence<'a>(&self, liveness: &'a Liveness, echoes: Echoes) -> Evidence<'a> {
        Evidence { liveness, ike_is_mute: self.ike_is_mute, missing: echoes.missing, heard: self.heard }
    }

    /// After the verdict: was it only a short hole?
    fn follow_up(&mut self, findings: &mut Findings, budget: &mut ProbeBudget, now: Moment) {
        let Some(since) = self.fell.map(|fell| now.since(fell)).filter(|since| *since < FALSE_ALARM) else {
            self.burst = None;
            return;
        };
        self.step(findings, budget, if since < CONFIRMING { self.nerves.step } else { SLOW_STEP }, now);
    }

    /// When an unanswered probe is late, if that says anything.
    fn overdue(&self, liveness: &Liveness) -> Option<Moment> {
        let prompt = liveness.prompt().filter(|_| !self.ike_is_mute)?;
        Some(liveness.unanswered(self.heard).next()? + prompt)
    }

    /// When the path is dead, if nothing is heard until then.
    fn dead_at(&self, liveness: &Liveness, inner: bool) -> Option<Moment> {
        let fall = self.fall_of(liveness, self.heard).filter(|_| inner || !self.ike_is_mute)?;
        let asks_in_vain = matches!(self.burst, None | Some(Burst { cause: Cause::Late, .. }));
        let idle = !self.habit.is_busy() && asks_in_vain;
        let patience = if idle { liveness.unanswered(self.heard).next()? + IDLE_PATIENCE } else { fall };
        Some(fall.max(patience).max(self.habit.expected_by().unwrap_or(fall)))
    }

    /// When enough probes that nothing since `heard` has answered have had their time.
    fn fall_of(&self, liveness: &Liveness, heard: Option<Moment>) -> Option<Moment> {
        let prompt = liveness.prompt()?;
        let (_, most) = self.nerves.probes;
        let enough = self.nerves.probes_for(liveness.loss()).saturating_mul(1 << self.caution).min(most);
        let last = liveness.unanswered(heard).nth(usize::from(enough).saturating_sub(1))?;
        Some(last + prompt + if self.heavy { HEAVY_PATIENCE } else { Duration::ZERO })
    }

    /// When a path that sends is to be asked.
    fn ask_at(&self) -> Option<Moment> {
        let since = self.heard.max(Some(self.asked))?;
        let asks = self.habit.is_sending() && !self.ike_is_mute;
        asks.then_some((since + self.nerves.ask_after).max(self.ask_next))
    }

    fn beware(&mut self, now: Moment) {
        let fading = now.since(self.cautious).as_secs() / CAUTION_FADES.as_secs();
        let left = self.caution.saturating_sub(u32::try_from(fading).unwrap_or(u32::MAX));
        (self.caution, self.cautious) = ((left + 1).min(MAX_CAUTION), now);
    }

    fn reason(&self, liveness: &Liveness, now: Moment) -> String {
        let prompt = liveness.prompt().unwrap_or_default();
        let over = liveness.unanswered(self.heard).take_while(|at| *at + prompt <= now);
        let first = liveness.unanswered(self.heard).next().unwrap_or(now);
        let span = now.since(first).as_millis();
        // What is sure, before what is only unusual.
        let cause = self.burst.map(|burst| burst.told.map_or(burst.cause, Cause::Trouble));
        let cause = cause.map(|cause| format!(", after {cause}")).unwrap_or_default();
        format!("{} probes within {span} ms were not answered{cause}", over.count())
    }
}

/// The peer's packets come in by other paths, but no answer of its IKE daemon does: that may be
/// busy. Then the steady probes judge.
fn withheld(peer: PeerSigns, began: Moment) -> bool {
    peer.esp.is_some_and(|esp| esp > began) && peer.ike.is_none_or(|ike| ike <= began)
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Cause::Silence(silence) => write!(f, "an unusual silence of {} ms", silence.as_millis()),
            Cause::Late => write!(f, "a late answer"),
            Cause::Trouble(Trouble::LinkDown) => write!(f, "its interface went down"),
            Cause::Trouble(Trouble::Unreachable) => write!(f, "the network said that the peer is unreachable"),
            Cause::Trouble(Trouble::SendFailed) => write!(f, "a packet could not be sent"),
        }
    }
}
