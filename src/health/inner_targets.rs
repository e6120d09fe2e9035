use std::time::Duration;

use arrayvec::ArrayVec;

use super::inner::{InnerTarget, MissingEcho, Returns};
use super::judge::metrics;
use super::trail::Trail;
use super::window::Window;
use super::{HealthSettings, Metrics, ProbeTarget, TargetCounts};
use crate::model::{Chance, Moment, Permille};

/// More inner targets than this add traffic, not knowledge; the rest are ignored.
pub const MAX_TARGETS: usize = 8;

/// So many results of an inner target are enough to judge by it.
const MEASURING_RESULTS: usize = 3;
/// Inner targets that never answered are mentioned after so many losses.
const NEVER_ANSWERED: u16 = 10;

/// The inner targets of one path: whose probes are whose, which of them measure the path, and which speaks for it.
#[derive(Debug)]
pub(super) struct InnerTargets {
    all: Vec<InnerTarget>,
    /// So many of those that are the path's own must be well.
    need: usize,
    /// So many lost in a row make one silent.
    down_after: u16,
    /// Of the next probe, and of the first since the last restart.
    next_id: u64,
    first_id: u64,
}

/// What is known of one inner target.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TargetReport<'a> {
    pub name: &'a str,
    pub metrics: Metrics,
    pub standing: TargetStanding,
    /// What it said last instead of an answer.
    pub refusal: Option<&'a str>,
    pub counts: TargetCounts,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum TargetStanding {
    /// Over the same path.
    Answers,
    /// It did, and does not any more, or says no.
    Silent,
    /// Over another tunnel, which says nothing.
    Elsewhere,
    /// Not once, or it has always said no.
    Never,
}

impl InnerTargets {
    /// `first` gives by chance when each is asked first.
    pub fn new(
        settings: &HealthSettings,
        targets: &[ProbeTarget],
        first: impl Fn(&mut Chance) -> Moment,
        chance: &mut Chance,
    ) -> InnerTargets {
        let targets = targets.iter().take(MAX_TARGETS);
        let all = targets.map(|target| InnerTarget::new(target.clone(), settings.window, first(chance))).collect();
        let next_id = chance.next_u64();
        let (need, down_after) = (settings.need.into(), settings.down_after.max(1));
        InnerTargets { all, need, down_after, next_id, first_id: next_id }
    }

    /// The tunnel was set up anew: probes through the one before are nobody's.
    pub fn restart(&mut self, window: u16, first: Moment) {
        self.all.iter_mut().for_each(|target| target.restart(window, first));
        self.first_id = self.next_id;
    }

    /// Gives up on probes whose time is over; whether one was lost of the target that is watched.
    pub fn expire(&mut self, watched: Option<usize>, now: Moment) -> bool {
        let mut lost_of_watched = false;
        for (index, target) in self.all.iter_mut().enumerate() {
            lost_of_watched |= target.expire(now) > 0 && watched == Some(index);
        }
        lost_of_watched
    }

    /// We were paused: answers may wait unread until then.
    pub fn excuse(&mut self, until: Moment) {
        self.all.iter_mut().for_each(|target| target.excuse(until));
    }

    pub fn schedule(&mut self, now: Moment, pace: Duration) {
        self.all.iter_mut().for_each(|target| target.schedule(now, pace));
    }

    /// They are asked by then at the latest.
    pub fn hasten(&mut self, latest: Moment) {
        self.all.iter_mut().for_each(|target| target.next = target.next.min(latest));
    }

    /// What was lost was an outage, which says nothing of a path that is back.
    pub fn keep_since_loss(&mut self) {
        for target in &mut self.all {
            target.window.keep_since_loss();
            target.trail.keep_since_loss();
        }
    }

    /// The target with this place in the list that was asked under this id since the last restart.
    pub fn asked(&mut self, id: u64, target: usize) -> Option<&mut InnerTarget> {
        let ours = id.wrapping_sub(self.first_id) < self.next_id.wrapping_sub(self.first_id);
        self.all.get_mut(target).filter(|_| ours)
    }

    pub fn get_mut(&mut self, target: usize) -> Option<&mut InnerTarget> {
        self.all.get_mut(target)
    }

    /// Which one is to be asked now, and under which id.
    pub fn poll(&mut self, now: Moment) -> Option<(u64, usize)> {
        let id = self.next_id;
        let target = self.all.iter_mut().position(|target| target.poll(id, now))?;
        self.next_id = id.wrapping_add(1);
        Some((id, target))
    }

    pub fn next_event(&self) -> Option<Moment> {
        self.all.iter().map(InnerTarget::next_event).min()
    }

    /// The first that measures this path and may be asked in quick succession.
    pub fn light(&self) -> Option<usize> {
        self.all.iter().position(|target| target.target.light && self.is_measuring(target))
    }

    /// The one whose probes of late speak for the path: of those that measure it the one with the least loss but
    /// `need` less one; of equals the one that comes first.
    pub fn speaking(&self) -> Option<(usize, &Trail)> {
        let measuring = || self.all.iter().enumerate().filter(|(_, target)| self.is_measuring(target));
        // Its loss takes a walk over all results, and one by itself is compared with none.
        let is_alone = measuring().nth(1).is_none();
        let loss = |target: &InnerTarget| if is_alone { Permille::ZERO } else { target.trail.loss_least() };
        let mut all: ArrayVec<(Permille, usize), MAX_TARGETS> =
            measuring().map(|(index, target)| (loss(target), index)).take(MAX_TARGETS).collect();
        all.sort_unstable();
        let (_, index) = *all.get(self.needed(all.len()) - 1)?;
        Some((index, &self.all.get(index)?.trail))
    }

    /// Whoever speaks for the path, if it may be asked in quick succession, or the first that may.
    pub fn watched(&self) -> Option<usize> {
        let is_light = |index: &usize| self.all.get(*index).is_some_and(|target| target.target.light);
        self.speaking().map(|(index, _)| index).filter(is_light).or_else(|| self.light())
    }

    /// What is missing of the one that is watched; see `InnerTarget::missing`.
    pub fn missing(&self, echoed: Option<Moment>) -> Option<MissingEcho> {
        // Most of the time nothing is, which is known sooner than who is watched.
        self.all.iter().find_map(|target| target.missing(echoed))?;
        self.all.get(self.watched()?)?.missing(echoed)
    }

    /// Asks `question` of the window of each that measures this path, which is how the site's own packets travel.
    pub fn each_window<T>(&self, question: impl Fn(&Window) -> T) -> ArrayVec<T, MAX_TARGETS> {
        let measuring = self.all.iter().filter(|target| self.is_measuring(target));
        measuring.map(|target| question(&target.window)).take(MAX_TARGETS).collect()
    }

    /// How many of so many targets must be well.
    pub fn needed(&self, of: usize) -> usize {
        self.need.clamp(1, of.max(1))
    }

    /// Too few of the targets that used to be answered over this path still are, whatever IKE does:
    /// a lost IKE probe does not make them answer.
    pub fn are_silent(&self) -> bool {
        let (answering, own) = self.own();
        own > 0 && answering < self.needed(own)
    }

    /// In the order in which they were given.
    pub fn reports(&self) -> impl Iterator<Item = TargetReport<'_>> {
        self.all.iter().map(|target| TargetReport {
            name: &target.target.name,
            metrics: metrics(&target.window),
            standing: match target.returns {
                Returns::Never => TargetStanding::Never,
                Returns::OtherPath => TargetStanding::Elsewhere,
                Returns::SamePath if self.is_silent(target) && !target.has_answered() => TargetStanding::Never,
                Returns::SamePath if self.is_silent(target) => TargetStanding::Silent,
                Returns::SamePath => TargetStanding::Answers,
            },
            refusal: target.refusal.as_deref(),
            counts: target.counts,
        })
    }

    /// What an operator should know of them, in plain words, where IKE is answered, or is not although the path is not
    /// down.
    pub fn note(&self, ike_answers: bool, ike_is_silent: bool) -> Option<String> {
        let silent = self.named(|target| self.is_silent(target));
        if ike_answers && self.are_silent() {
            let (answering, own) = self.own();
            let needed = self.needed(own);
            let missed =
                if needed > 1 { format!(" ({answering} of {own} answer, {needed} are needed)") } else { String::new() };
            return Some(format!(
                "IKE answers, inner probes to {} do not{missed}: suspect what lies behind the PoP or a shared return tunnel",
                silent?
            ));
        }
        let (answering, _) = self.own();
        if answering > 0 && ike_is_silent {
            return Some("inner probes are answered, IKE is not".into());
        }
        if silent.is_some() {
            let ceased = self.named(|target| self.is_silent(target) && target.has_answered());
            let ceased = ceased.map(|names| format!("inner probes to {names} are not answered any more"));
            let never = self.named(|target| self.is_silent(target) && !target.has_answered());
            let never = never.map(|names| format!("inner probes to {names} have never been answered"));
            let both: Vec<String> = ceased.into_iter().chain(never).collect();
            // Where nothing is answered, the verdict says it all.
            return (answering > 0).then(|| format!("{}, others are", both.join(", ")));
        }
        if let Some(elsewhere) = self.named(|target| target.returns == Returns::OtherPath) {
            return Some(format!(
                "answers to inner probes to {elsewhere} come back over another tunnel and say nothing about this path"
            ));
        }
        let never = self.named(|target| target.returns == Returns::Never && target.lost_in_row >= NEVER_ANSWERED)?;
        Some(format!("inner probes to {never} have never been answered and do not count"))
    }

    /// `None`: there are no such.
    fn named(&self, wanted: impl Fn(&InnerTarget) -> bool) -> Option<String> {
        let names: Vec<String> = self.all.iter().filter(|target| wanted(target)).map(describe).collect();
        (!names.is_empty()).then(|| names.join(", "))
    }

    fn is_measuring(&self, target: &InnerTarget) -> bool {
        target.returns == Returns::SamePath
            && !self.is_silent(target)
            && target.window.len() >= MEASURING_RESULTS.min(target.window.size())
    }

    /// A target that used to be answered over this path and is not any more.
    fn is_silent(&self, target: &InnerTarget) -> bool {
        target.returns == Returns::SamePath && target.lost_in_row >= self.down_after
    }

    /// How many of the targets that are or were answered over this path answer, and how many there are.
    fn own(&self) -> (usize, usize) {
        let own = || self.all.iter().filter(|target| target.returns == Returns::SamePath);
        (own().filter(|target| !self.is_silent(target)).count(), own().count())
    }
}

/// A target's name, and what it said.
fn describe(target: &InnerTarget) -> String {
    match &target.refusal {
        Some(refusal) => format!("{} ({refusal})", target.target.name),
        None => target.target.name.clone(),
    }
}
