use std::time::Duration;

use crate::model::Moment;

/// A packet of this size is taken to fit any path until it is known better (RFC 8899 5.1.2,
/// BASE_PLPMTU).
const BASE: u16 = 1_200;

/// So many probes of one size must be lost before it counts as too large (RFC 8899 5.1.2,
/// MAX_PROBES): one may be lost like any other packet.
const TRIES: u8 = 3;

/// An answer is waited for so long: longer than any round trip that voice could stand.
const PATIENCE: Duration = Duration::from_millis(700);

/// ESP pads to this many bytes, so finer steps would gain nothing.
const STEP: u16 = 4;
/// What ESP puts behind a packet before it pads (RFC 4303 2.4, 2.6).
const ESP_TRAILER: u16 = 2;

/// The size in use is asked for again and again: a path that comes to carry less and says nothing
/// is found out after this time and three lost probes.
const CONFIRM: Duration = Duration::from_secs(10);

/// After so long a larger size is tried again (RFC 8899 5.1.1, PMTU_RAISE_TIMER).
const RAISE: Duration = Duration::from_secs(600);

/// A target that answers no probe of any size says nothing; it is asked again after this time.
const RETRY: Duration = Duration::from_secs(60);

/// Finds the largest inner packet that a path carries in one piece, by probes that may not be cut
/// (RFC 8899). It begins with the most that the interface allows, so that a path without a narrow
/// place never sends less, and while it searches, what is in use is known to fit.
///
/// Order: `handle_*`, then `poll_probe` until `None`, then `poll_timeout`.
#[derive(Debug)]
pub struct PathMtu {
    /// What encapsulation leaves of the interface's MTU, or as configured.
    ceiling: u16,
    current: u16,
    /// The largest size that was answered, or the base.
    fits: u16,
    /// The largest size that may fit.
    may_fit: u16,
    /// Has any probe been answered since the search began?
    answered: bool,
    /// What the last search that came to an end has found.
    proven: Option<u16>,
    probe: Option<Outstanding>,
    /// The next probe is sent then.
    next: Moment,
    /// A larger one is tried again then.
    raise: Moment,
}

#[derive(Clone, Copy, Debug)]
struct Outstanding {
    size: u16,
    tries: u8,
    until: Moment,
}

impl PathMtu {
    /// Sizes are those of inner packets, in bytes.
    pub fn new(ceiling: u16, now: Moment) -> PathMtu {
        PathMtu {
            ceiling,
            current: ceiling,
            fits: BASE.min(ceiling),
            may_fit: ceiling,
            answered: false,
            proven: None,
            probe: None,
            next: now,
            raise: now + RAISE,
        }
    }

    /// The largest inner packet to send.
    pub fn mtu(&self) -> u16 {
        self.current
    }

    /// Has a search come to an end, and is what it found in use?
    pub fn is_proven(&self) -> bool {
        self.proven == Some(self.current) && self.answered
    }

    /// The interface's MTU, or the configuration, allows this size now.
    pub fn handle_ceiling(&mut self, ceiling: u16, now: Moment) {
        if ceiling != self.ceiling {
            *self = PathMtu::new(ceiling, now);
        }
    }

    /// A probe of this size has come back.
    pub fn handle_answer(&mut self, size: u16, now: Moment) {
        let size = size.min(self.ceiling);
        self.answered = true;
        self.fits = self.fits.max(size);
        // It may be late, and fits all the same.
        self.may_fit = self.may_fit.max(self.fits);
        if self.probe.take_if(|probe| probe.size <= size).is_none() {
            return;
        }
        self.current = self.fits;
        self.next = now;
        if !self.is_open() {
            self.proven = Some(self.current);
            self.next = now + CONFIRM;
        }
    }

    /// The host has refused a packet on this path as too large (EMSGSIZE): a router has told it
    /// so, and it tells at once.
    pub fn handle_too_big(&mut self, now: Moment) {
        match self.probe.take_if(|probe| probe.size > self.fits) {
            Some(probe) => self.exclude(probe.size, now),
            None if self.current > self.base() => self.exclude(self.current, now),
            None => {}
        }
    }

    /// Counts a probe whose time is over as lost, and lets `poll_probe` send what is due.
    pub fn handle_timeout(&mut self, now: Moment) {
        if let Some(probe) = self.probe.filter(|probe| now >= probe.until && probe.tries >= TRIES) {
            self.probe = None;
            self.exclude(probe.size, now);
        }
        if now >= self.raise {
            self.raise = now + RAISE;
            self.may_fit = self.ceiling;
        }
    }

    /// The size of a probe to send now, as one packet that may not be cut.
    pub fn poll_probe(&mut self, now: Moment) -> Option<u16> {
        if now < self.poll_timeout() {
            return None;
        }
        let (size, tries) = self.probe.map_or_else(|| (self.wanted(), 0), |probe| (probe.size, probe.tries));
        self.probe = Some(Outstanding { size, tries: tries.saturating_add(1), until: now + PATIENCE });
        Some(size)
    }

    pub fn poll_timeout(&self) -> Moment {
        self.probe.map_or(self.next, |probe| probe.until)
    }

    /// The largest at first, since most paths carry it. If that is lost, the smallest: perhaps the
    /// target answers nothing of the kind. Then the middle of what is open.
    fn wanted(&self) -> u16 {
        if !self.is_open() {
            self.current
        } else if self.may_fit == self.ceiling {
            self.ceiling
        } else if !self.answered {
            self.base()
        } else {
            let middle = self.fits + (self.may_fit - self.fits).div_ceil(2);
            // So that none of what is sent is padding.
            let filled = (middle + ESP_TRAILER).next_multiple_of(STEP) - ESP_TRAILER;
            if filled <= self.may_fit { filled } else { middle }
        }
    }

    /// This size does not fit, or nothing is answered.
    fn exclude(&mut self, size: u16, now: Moment) {
        if size <= self.base() {
            // The target tells nothing, and so nothing was found out.
            self.current = self.proven.unwrap_or(self.ceiling);
            (self.fits, self.may_fit, self.answered) = (self.base(), self.ceiling, false);
            self.next = now + RETRY;
            return;
        }
        self.may_fit = size - 1;
        if self.fits >= size {
            // What was in use fits no longer; whether anything is answered is open again.
            (self.fits, self.answered) = (self.base(), false);
        }
        self.current = self.current.min(self.fits);
        self.next = now;
    }

    fn is_open(&self) -> bool {
        self.may_fit.saturating_sub(self.fits) >= STEP
    }

    fn base(&self) -> u16 {
        BASE.min(self.ceiling)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RTT: Duration = Duration::from_millis(40);
    const CEILING: u16 = 1_438;

    /// A path behind which a target answers what comes through.
    struct Path {
        machine: PathMtu,
        carries: u16,
        answers: bool,
        /// A router, and so the host, says when a packet is too large.
        tells: bool,
        on_the_way: Option<(Moment, u16)>,
        now: Moment,
        probes: u32,
        smallest_in_use: u16,
    }

    impl Path {
        fn new(carries: u16) -> Path {
            let now = Moment::from_millis(5_000);
            let machine = PathMtu::new(CEILING, now);
            Path {
                machine,
                carries,
                answers: true,
                tells: false,
                on_the_way: None,
                now,
                probes: 0,
                smallest_in_use: CEILING,
            }
        }

        fn run(&mut self, span: Duration) -> u16 {
            let end = self.now + span;
            loop {
                let due = self.machine.poll_timeout();
                let due = self.on_the_way.map_or(due, |(arrives, _)| arrives.min(due)).max(self.now);
                if due > end {
                    self.now = end;
                    return self.machine.mtu();
                }
                self.now = due;
                if let Some((_, size)) = self.on_the_way.take_if(|(arrives, _)| *arrives <= due) {
                    self.machine.handle_answer(size, due);
                }
                self.machine.handle_timeout(due);
                while let Some(size) = self.machine.poll_probe(due) {
                    self.probes += 1;
                    if size > self.carries && self.tells {
                        self.machine.handle_too_big(due);
                    } else if size <= self.carries && self.answers {
                        self.on_the_way = Some((due + RTT, size));
                    }
                }
                assert!(self.machine.poll_timeout() > due, "it would be asked again at once");
                self.smallest_in_use = self.smallest_in_use.min(self.machine.mtu());
            }
        }
    }

    const MINUTE: Duration = Duration::from_secs(60);

    #[test]
    fn a_path_without_a_narrow_place_is_proven_by_its_first_probe_and_never_sends_less() {
        let mut path = Path::new(9_000);
        assert_eq!(path.run(Duration::from_secs(1)), CEILING);
        assert!(path.machine.is_proven());
        assert_eq!(path.probes, 1);
        path.run(60 * MINUTE);
        assert_eq!(path.smallest_in_use, CEILING);
        assert!(path.probes <= 361, "{} probes in an hour", path.probes);
    }

    #[test]
    fn every_narrow_place_is_found_to_within_a_step_told_or_not() {
        for tells in [true, false] {
            for carries in (BASE..CEILING).step_by(7) {
                let mut path = Path { tells, ..Path::new(carries) };
                let found = path.run(MINUTE);
                assert!(found <= carries && carries - found < STEP, "{found} of {carries}, told: {tells}");
                assert!(path.machine.is_proven());
            }
        }
    }

    #[test]
    fn a_black_hole_is_left_within_seconds() {
        let mut path = Path::new(1_338);
        assert_eq!(path.run(Duration::from_secs(2)), CEILING);
        assert!(path.run(Duration::from_millis(200)) <= 1_338, "after three lost probes");
        let mut path = Path::new(CEILING);
        path.run(MINUTE);
        path.carries = 1_300;
        assert!(path.run(CONFIRM + 4 * PATIENCE) <= 1_300);
        assert!((1_297..=1_300).contains(&path.run(MINUTE)));
    }

    #[test]
    fn a_host_that_refuses_a_packet_is_believed_at_once() {
        let mut path = Path { tells: true, ..Path::new(CEILING) };
        path.run(MINUTE);
        path.carries = 1_300;
        path.machine.handle_too_big(path.now);
        assert_eq!(path.machine.mtu(), BASE);
        assert!((1_297..=1_300).contains(&path.run(Duration::from_secs(2))));
    }

    #[test]
    fn a_path_that_carries_more_again_is_found_out() {
        let mut path = Path::new(1_300);
        path.run(MINUTE);
        path.carries = 9_000;
        assert_eq!(path.run(RAISE + CONFIRM), CEILING);
        // The search for more has never cost anything.
        assert!(path.smallest_in_use >= BASE);
    }

    #[test]
    fn a_target_that_never_answers_large_packets_lowers_nothing_for_long() {
        let mut path = Path { answers: false, ..Path::new(CEILING) };
        path.run(Duration::from_secs(5));
        assert_eq!((path.machine.mtu(), path.machine.is_proven()), (CEILING, false));
    }

    #[test]
    fn a_target_that_goes_away_leaves_what_was_proven() {
        let mut path = Path::new(1_338);
        let found = path.run(MINUTE);
        path.answers = false;
        path.run(20 * MINUTE);
        let end = path.now + 5 * MINUTE;
        // While it looks, the smallest is in use for a moment.
        while path.now < end && path.machine.mtu() != found {
            path.run(Duration::from_millis(100));
        }
        assert_eq!(path.machine.mtu(), found);
        path.answers = true;
        assert_eq!(path.run(2 * MINUTE), found);
    }

    #[test]
    fn one_lost_probe_changes_nothing() {
        let mut path = Path::new(CEILING);
        path.run(MINUTE);
        let before = path.probes;
        path.answers = false;
        while path.probes == before {
            path.run(Duration::from_millis(10));
        }
        path.answers = true;
        path.run(MINUTE);
        assert_eq!(path.smallest_in_use, CEILING);
    }

    #[test]
    fn another_mtu_of_the_interface_starts_anew() {
        let mut path = Path::new(9_000);
        path.run(MINUTE);
        path.machine.handle_ceiling(1_338, path.now);
        assert_eq!((path.machine.mtu(), path.machine.is_proven()), (1_338, false));
        path.machine.handle_ceiling(1_338, path.now + MINUTE);
        assert_eq!(path.run(Duration::from_secs(1)), 1_338);
        path.machine.handle_ceiling(600, path.now);
        assert_eq!(path.run(Duration::from_secs(1)), 600, "below what is usual, all is tried");
    }
}
