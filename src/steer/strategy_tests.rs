use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::model::{ConnectorId, Dscp, FlowKey, LinkId, PathId, Permille, RuleId, Verdict, WeekMinute, protocol};

const FIBRE: LinkId = LinkId(0);
const DSL: LinkId = LinkId(1);
const LTE: LinkId = LinkId(2);

const VOICE: SlaId = SlaId(0);

fn flow(port: u16) -> NewFlow {
    let key = FlowKey {
        segment: 0,
        protocol: protocol::UDP,
        source: [10, 20, 0, 5].into(),
        destination: [203, 0, 113, 9].into(),
        source_port: port,
        destination_port: 5_060,
    };
    NewFlow {
        key,
        dscp: Dscp::DEFAULT,
        connector: ConnectorId(0),
        minute: WeekMinute::default(),
        ends: Ends::default(),
    }
}

fn rules(steering: Steering) -> RuleSet {
    let rule = Rule {
        name: "voice".to_owned(),
        place: String::new(),
        matcher: Matcher::default(),
        action: Action::Steer(steering),
    };
    RuleSet::new(vec![rule], SlaClass::shipped())
}

fn quality(loss_permille: u16, rtt_ms: u64, jitter_ms: u64) -> Quality {
    Quality {
        loss: Permille::new(loss_permille),
        rtt: Some(Duration::from_millis(rtt_ms)),
        jitter: Some(Duration::from_millis(jitter_ms)),
        ..Quality::default()
    }
}

/// A healthy path that measures this; fibre, dsl and lte have the paths 0, 1 and 2.
fn measuring(link: LinkId, quality: Quality) -> Candidate {
    Candidate {
        sla: SlaStanding::default().judge(&SlaClass::shipped(), &quality),
        score: quality.score(),
        ..Candidate::new(PathId(link.0), link, Verdict::Healthy, if link == LTE { 2 } else { 1 }, 100)
    }
}

fn unmeasured(link: LinkId, verdict: Verdict) -> Candidate {
    Candidate { verdict, ..measuring(link, Quality::default()) }
}

/// The paths that flows get, and the reason.
fn spread(rules: &RuleSet, candidates: &[Candidate]) -> (Vec<u16>, Why) {
    let mut paths: Vec<u16> =
        (0..100).filter_map(|port| choose(rules, &flow(port), candidates).path).map(|path| path.0).collect();
    paths.sort_unstable();
    paths.dedup();
    (paths, choose(rules, &flow(1), candidates).why)
}

const GOOD: (u16, u64, u64) = (0, 20, 2);

fn good(link: LinkId) -> Candidate {
    measuring(link, quality(GOOD.0, GOOD.1, GOOD.2))
}

#[test]
fn an_sla_class_leaves_paths_out_that_are_known_to_miss_it() {
    let rules = rules(Steering { sla: Some(VOICE), ..Steering::default() });
    let late = measuring(FIBRE, quality(0, 350, 5));
    let lossy = measuring(DSL, quality(15, 20, 5));
    let share = |among| Why::Share { verdict: Verdict::Healthy, among };
    let best = Why::Best { verdict: Verdict::Healthy };
    assert_eq!(spread(&rules, &[good(FIBRE), good(DSL), good(LTE)]), (vec![0, 1], share(2)));
    assert_eq!(spread(&rules, &[late, good(DSL), good(LTE)]), (vec![1], best));
    assert_eq!(spread(&rules, &[late, lossy, good(LTE)]), (vec![2], best), "the class comes before preference");
    // What was not measured is neither good nor bad.
    let unknown = unmeasured(DSL, Verdict::Healthy);
    assert_eq!(spread(&rules, &[good(FIBRE), unknown, late]).0, [0]);
    assert_eq!(spread(&rules, &[late, unknown, lossy]).0, [1]);
    let degraded = Candidate { verdict: Verdict::Degraded, ..good(DSL) };
    assert_eq!(spread(&rules, &[late, degraded, late]).0, [1], "degraded, but it meets the class");
    let standing = choose(&rules, &flow(1), &[late, good(DSL), good(LTE)]).standings;
    assert_eq!(standing[..3], [Standing::Sla, Standing::Best, Standing::Preference]);
}

#[test]
fn when_no_path_meets_the_class_the_best_of_the_worst_carries_the_flow() {
    let rules = rules(Steering { sla: Some(VOICE), links: Links::Prefer(vec![FIBRE, DSL]), ..Steering::default() });
    let paths =
        [measuring(FIBRE, quality(40, 30, 5)), measuring(DSL, quality(20, 30, 5)), measuring(LTE, quality(30, 90, 50))];
    assert_eq!(spread(&rules, &paths), (vec![1], Why::LeastBad { class: VOICE, among: 1 }));
    let link_that_does = [paths[0], paths[1], good(LTE)];
    assert_eq!(spread(&rules, &link_that_does), (vec![2], Why::FellBackSla { class: VOICE, among: 1 }));
}

#[test]
fn a_class_once_missed_is_met_again_well_below_its_limits() {
    let classes = SlaClass::shipped();
    let judge = |before: SlaStanding, rtt_ms| before.judge(&classes, &quality(0, rtt_ms, 5));
    let met = judge(SlaStanding::UNMEASURED, 300);
    assert_eq!(met.of(VOICE), Some(true));
    let missed = judge(met, 301);
    assert_eq!(missed.of(VOICE), Some(false));
    assert!(missed.misses_more_than(met) && !met.misses_more_than(missed));
    assert_eq!(judge(missed, 290).of(VOICE), Some(false));
    assert_eq!(judge(missed, 270).of(VOICE), Some(true));
    // One broken limit is enough to miss it; all must be known to meet it.
    let partly = |loss: Option<u16>, rtt_ms: Option<u64>| {
        let rtt = rtt_ms.map(Duration::from_millis);
        SlaStanding::UNMEASURED
            .judge(&classes, &Quality { loss: loss.and_then(Permille::new), rtt, ..Quality::default() })
    };
    assert_eq!(partly(Some(0), Some(20)).of(VOICE), None);
    assert_eq!(partly(Some(20), None).of(VOICE), Some(false));
    assert_eq!(partly(None, None).of(VOICE), None);
}

#[test]
fn a_class_missed_for_delay_asks_for_no_proof_that_nothing_is_lost_and_one_missed_for_loss_does() {
    let classes = SlaClass::shipped();
    let permille = |value| Permille::new(value).unwrap();
    let measured = |jitter, loss_least, loss_most| Quality {
        recent: Some(Recent {
            rtt: Duration::from_millis(20),
            jitter: Duration::from_millis(jitter),
            loss: permille(loss_least),
            loss_least: permille(loss_least),
            loss_most: permille(loss_most),
        }),
        ..quality(0, 20, jitter)
    };
    let after = |before: SlaStanding, quality: Quality| {
        let judged = before.judge(&classes, &quality);
        before.settle(judged, before.judge(&classes, &quality))
    };
    let (shaky, lossy, well) = (measured(40, 0, 41), measured(2, 30, 90), measured(2, 0, 41));
    let met = after(SlaStanding::UNMEASURED, well);
    let late = after(met, shaky);
    let voice = &classes[usize::from(VOICE.0)];
    let told = late.remark(VOICE, voice, &shaky);
    assert_eq!(told.as_deref(), Some("misses voice: the jitter is 40.0 ms, and must be 27.0 ms"));
    assert_eq!(after(late, well).of(VOICE), Some(true));
    let lost = after(met, lossy);
    let told = lost.remark(VOICE, voice, &well);
    let words =
        "it lost too much, and so far it is only sure that it loses less than 4.1 % now, not that it is 0.90 % at most";
    assert_eq!(told, Some(format!("misses voice: {words}")));
    assert_eq!(after(lost, well).of(VOICE), Some(false));
    assert_eq!(after(lost, measured(2, 0, 9)).of(VOICE), Some(true));
    // What it loses is held against it too where the delay came first.
    assert_eq!(after(after(late, lossy), well).of(VOICE), Some(false));
    // When two judgements are sure that it loses no more, it is missed for what is late alone, and not when one is.
    let late_alone = measured(40, 0, 9);
    assert_eq!(after(after(lost, late_alone), well).of(VOICE), Some(true));
    let once = lost.settle(lost.judge(&classes, &lossy), lost.judge(&classes, &late_alone));
    assert_eq!(after(once, well).of(VOICE), Some(false));
    assert_eq!(met.remark(VOICE, voice, &lossy), None);
    let told = met.remark(VOICE, voice, &Quality { loss: Some(permille(33)), ..well });
    let words = "meets voice: of the 3.3 % that it lost in the window 0.0 % is certain, and 1.0 % allowed";
    assert_eq!(told.as_deref(), Some(words));
}

#[test]
fn no_call_leaves_a_healthy_path_for_one_that_nobody_has_measured() {
    let rules = rules(Steering { sla: Some(VOICE), ..Steering::default() });
    let misses = measuring(FIBRE, quality(15, 20, 5));
    let new = Candidate { verdict: Verdict::Unknown, settled: false, sla: SlaStanding::UNMEASURED, ..good(DSL) };
    assert_eq!(again(&rules, &[misses, new], 0, true), (0, Some(Stay::HoldDown)));
    assert_eq!(again(&rules, &[Candidate { verdict: Verdict::Degraded, ..misses }, new], 0, true), (1, None));
    let by_another = Present { path: misses.path, rule: None, dwelt: true, let_go: false };
    let choice = choose_by(rules.first_match(&flow(1)), &flow(1).key, &[misses, new], Some(by_another));
    assert_eq!((choice.path, choice.stay), (Some(new.path), None), "what another rule has chosen is chosen anew");
    let measured = Candidate { settled: true, verdict: Verdict::Healthy, ..new };
    assert_eq!(again(&rules, &[misses, measured], 0, true), (1, None), "it may be worth trying");
    assert_eq!(spread(&rules, &[misses, new]).0, [1], "and so it is for a new call");
    // But one that comes and goes is not.
    let unsteady = Condition { unsteady: true, ..Condition::GOOD };
    let flapping = in_condition(unsteady, new);
    assert_eq!(spread(&rules, &[misses, flapping]).0, [0]);
    let sick = Candidate { verdict: Verdict::Degraded, ..misses };
    assert_eq!(spread(&rules, &[sick, flapping]).0, [1]);
}

fn in_condition(condition: Condition, candidate: Candidate) -> Candidate {
    Candidate { condition, ..candidate }
}

#[test]
fn what_the_site_does_to_a_link_itself_takes_nothing_away_from_it_that_only_wants_to_get_through() {
    let strained = Condition { strained: true, full: true, ..Condition::GOOD };
    let slow = Candidate { verdict: Verdict::Degraded, ..measuring(FIBRE, quality(0, 450, 5)) };
    let bulk = rules(Steering::default());
    let calls = rules(Steering { sla: Some(VOICE), ..Steering::default() });
    assert_eq!(again(&bulk, &[slow, good(DSL)], 0, true), (1, None));
    let ours = in_condition(strained, slow);
    assert_eq!(again(&bulk, &[ours, good(DSL)], 0, true), (0, Some(Stay::AmongBest)));
    assert_eq!(again(&calls, &[ours, good(DSL)], 0, true), (1, None), "calls leave it");
    assert_eq!(spread(&bulk, &[ours, good(DSL)]).0, [1], "and nothing more goes there");
    assert_eq!(choose(&bulk, &flow(1), &[ours, good(DSL)]).standings[0], Standing::Full);
    assert_eq!(spread(&bulk, &[ours, in_condition(strained, good(DSL))]).0, [0, 1], "but where all are full");
}

#[test]
fn a_path_that_is_never_up_for_long_is_not_forgiven_what_the_site_does_to_its_link() {
    let strained = Condition { strained: true, ..Condition::GOOD };
    let bulk = rules(Steering::default());
    let slow = Candidate { verdict: Verdict::Degraded, ..measuring(FIBRE, quality(0, 450, 5)) };
    let at = |condition| spread(&bulk, &[in_condition(condition, slow), good(DSL)]).0;
    assert_eq!(at(strained), [0, 1], "slow for what it carries alone");
    assert_eq!(at(Condition { unsteady: true, ..strained }), [0, 1]);
    assert_eq!(at(Condition { unsteady: true, fleeting: true, ..strained }), [1]);
}

#[test]
fn calls_keep_off_a_path_that_was_down_again_and_again_and_all_flows_off_one_that_is_never_up_for_long() {
    let unsteady = Condition { unsteady: true, ..Condition::GOOD };
    let fleeting = Condition { unsteady: true, fleeting: true, ..Condition::GOOD };
    let bulk = rules(Steering::default());
    let calls = rules(Steering { strategy: PathStrategy::Best, ..Steering::default() });
    let by =
        |rules: &RuleSet, condition: Condition| spread(rules, &[in_condition(condition, good(FIBRE)), good(DSL)]).0;
    assert_eq!((by(&bulk, unsteady), by(&calls, unsteady)), (vec![0, 1], vec![1]));
    assert_eq!((by(&bulk, fleeting), by(&calls, fleeting)), (vec![1], vec![1]));
    let down = Candidate { verdict: Verdict::Down, ..good(DSL) };
    assert_eq!(spread(&bulk, &[in_condition(fleeting, good(FIBRE)), down]).0, [0], "it is better than none");
    let standings = choose(&calls, &flow(1), &[in_condition(unsteady, good(FIBRE)), good(DSL)]).standings;
    assert_eq!(standings[0], Standing::Unsteady);
    let links = Links::Prefer(vec![FIBRE]);
    for sla in [None, Some(VOICE)] {
        let on_fibre =
            rules(Steering { links: links.clone(), strategy: PathStrategy::Best, sla, ..Steering::default() });
        let why = choose(&on_fibre, &flow(1), &[in_condition(unsteady, good(FIBRE)), good(DSL)]).why;
        assert_eq!(why, Why::FellBackUnsteady { among: 1 });
    }
    let calls_on_fibre = rules(Steering { links, sla: Some(VOICE), ..Steering::default() });
    let new = in_condition(unsteady, Candidate { sla: SlaStanding::UNMEASURED, ..good(FIBRE) });
    let choice = choose(&calls_on_fibre, &flow(1), &[new, good(DSL)]);
    let told = (choice.standings[0], choice.why);
    assert_eq!(told, (Standing::Unsteady, Why::FellBackUnsteady { among: 1 }), "whose class is not known yet");
}

#[test]
fn loss_counts_against_a_class_when_it_is_certain_and_for_it_when_its_absence_is() {
    let classes = SlaClass::shipped();
    let measured = |loss, least, most| Quality {
        recent: Some(Recent {
            rtt: Duration::from_millis(20),
            jitter: Duration::from_millis(2),
            loss: Permille::new(loss).unwrap(),
            loss_least: Permille::new(least).unwrap(),
            loss_most: Permille::new(most).unwrap(),
        }),
        ..quality(33, 20, 2)
    };
    let met = SlaStanding::UNMEASURED.judge(&classes, &measured(33, 0, 130));
    assert_eq!(met.of(VOICE), Some(true), "one of thirty may be chance");
    let missed = met.judge(&classes, &measured(33, 20, 60));
    assert_eq!(missed.of(VOICE), Some(false));
    assert_eq!(missed.judge(&classes, &measured(20, 4, 40)).of(VOICE), Some(false));
    assert_eq!(missed.judge(&classes, &measured(0, 0, 40)).of(VOICE), Some(false), "so may none of sixty be");
    assert_eq!(missed.judge(&classes, &measured(0, 0, 9)).of(VOICE), Some(true));
    assert_eq!(measured(33, 0, 130).single_kbps(), None);
    // Of 20 ms and 1 % lost each way.
    assert!((6_500..7_200).contains(&measured(33, 20, 60).single_kbps().unwrap()));
    // Two paths of 2 %, one of which is asked ten times as often.
    let (busy, idle) = (measured(20, 12, 28), measured(0, 0, 77));
    let best = busy.loss_most().min(idle.loss_most());
    assert_eq!((busy.score_beside(best), idle.score_beside(best)), (Some(14_000), Some(14_000)));
    let worse = measured(50, 38, 65);
    assert_eq!(worse.score_beside(best), Some(114_000));
}

#[test]
fn a_class_is_missed_or_met_when_two_judgements_in_a_row_say_so() {
    let classes = SlaClass::shipped();
    let rtt = |ms| SlaStanding::UNMEASURED.judge(&classes, &quality(0, ms, 5));
    let (well, slow, none) = (rtt(20), rtt(900), SlaStanding::UNMEASURED);
    let told = |before: [SlaStanding; 3]| before[0].settle(before[1], before[2]).of(VOICE);
    assert_eq!(told([none, none, well]), Some(true), "what is known at first is believed");
    assert_eq!(told([well, well, slow]), Some(true));
    assert_eq!(told([well, slow, slow]), Some(false));
    assert_eq!(told([slow, slow, well]), Some(false));
    assert_eq!(told([slow, well, well]), Some(true));
    assert_eq!(told([well, well, none]), Some(true));
    assert_eq!(told([well, none, none]), None);
    let both = well.settle(well, slow);
    assert_eq!((both.of(VOICE), both.of(SlaId(3))), (Some(true), Some(true)), "each class by itself");
}

#[test]
fn a_score_needs_all_measures_and_loss_weighs_most() {
    assert_eq!(quality(0, 20, 0).score(), Some(10_000));
    assert_eq!(quality(10, 20, 5).score(), Some(120_000));
    assert_eq!(Quality { jitter: None, ..quality(0, 20, 0) }.score(), None);
}

#[test]
fn a_last_resort_is_used_when_nothing_else_is_up_or_a_rule_names_it() {
    let last = Candidate { last_resort: true, preference: 1, ..good(LTE) };
    let degraded = Candidate { verdict: Verdict::Degraded, ..good(FIBRE) };
    let down = Candidate { verdict: Verdict::Down, ..good(FIBRE) };
    let none = RuleSet::default();
    assert_eq!(spread(&none, &[good(FIBRE), last]).0, [0]);
    assert_eq!(spread(&none, &[degraded, last]).0, [0], "what is up comes first");
    assert_eq!(spread(&none, &[down, last]), (vec![2], Why::OnlyCandidate));
    let named = rules(Steering { links: Links::Prefer(vec![LTE]), ..Steering::default() });
    assert_eq!(spread(&named, &[good(FIBRE), last]).0, [2]);
    let standings = choose(&none, &flow(1), &[degraded, last]).standings;
    assert_eq!(standings[1], Standing::LastResort);
}

#[test]
fn each_strategy_asks_for_what_it_says() {
    let with = |strategy, links| rules(Steering { strategy, links, ..Steering::default() });
    let slow = measuring(FIBRE, quality(0, 80, 2));
    let metered = Candidate { metered: true, preference: 1, ..good(DSL) };
    let best = with(PathStrategy::Best, Links::Any);
    assert_eq!(spread(&best, &[slow, good(LTE)]), (vec![2], Why::BestMeasured { among: 1 }));
    let unknown = unmeasured(DSL, Verdict::Healthy);
    assert_eq!(spread(&best, &[slow, unknown]).0, [0], "what was not measured is not the best");
    let cheapest = with(PathStrategy::Cheapest, Links::Any);
    assert_eq!(spread(&cheapest, &[slow, metered, good(LTE)]), (vec![0], Why::Cheapest { among: 1 }));
    assert_eq!(spread(&cheapest, &[metered, good(LTE)]).0, [2], "not metered comes before preference");
    let named = Links::Prefer(vec![LTE, FIBRE]);
    let all = [good(FIBRE), good(DSL), good(LTE)];
    assert_eq!(spread(&with(PathStrategy::Balance, named.clone()), &all).0, [0, 2], "all that are named");
    assert_eq!(spread(&with(PathStrategy::Prefer, named.clone()), &all).0, [2]);
    assert_eq!(spread(&with(PathStrategy::Sticky, named.clone()), &all).0, [2]);
    assert_eq!(
        spread(&with(PathStrategy::Best, Links::Strict(vec![FIBRE, DSL])), &[slow, good(DSL), good(LTE)]).0,
        [1]
    );
}

/// Where a flow goes that is on a path, and why it stays there if it does.
fn again(rules: &RuleSet, candidates: &[Candidate], path: u16, dwelt: bool) -> (u16, Option<Stay>) {
    let present = Present { path: PathId(path), rule: Some(RuleId(0)), dwelt, let_go: true };
    let flow = flow(7);
    let choice = choose_by(rules.first_match(&flow), &flow.key, candidates, Some(present));
    (choice.path.map_or(99, |path| path.0), choice.stay)
}

#[test]
fn a_flow_stays_unless_there_is_a_better_path_that_has_proved_itself() {
    let by = |steering: Steering| rules(steering);
    let prefer =
        by(Steering { strategy: PathStrategy::Prefer, links: Links::Prefer(vec![FIBRE, DSL]), ..Default::default() });
    let all = [good(FIBRE), good(DSL), good(LTE)];
    let fresh = [Candidate { settled: false, ..good(FIBRE) }, good(DSL), good(LTE)];
    let sick = [good(FIBRE), Candidate { verdict: Verdict::Degraded, ..good(DSL) }, good(LTE)];
    assert_eq!(again(&prefer, &all, 0, true), (0, Some(Stay::AmongBest)));
    assert_eq!(again(&prefer, &all, 1, true), (0, None), "the first link is there again");
    assert_eq!(again(&prefer, &all, 1, false), (1, Some(Stay::Dwell)));
    assert_eq!(again(&prefer, &fresh, 1, true), (1, Some(Stay::HoldDown)));
    assert_eq!(again(&prefer, &sick, 1, false), (0, None), "a path in bad health is left at once");
    let down = [fresh[0], Candidate { verdict: Verdict::Down, ..good(DSL) }];
    assert_eq!(again(&prefer, &down, 1, false), (0, None), "and one that is down for whatever is there");

    let balance = by(Steering::default());
    for path in 0..2 {
        assert_eq!(again(&balance, &all, path, false), (path, Some(Stay::AmongBest)), "the hash moves nothing");
    }
    let strict =
        by(Steering { strategy: PathStrategy::Prefer, links: Links::Strict(vec![FIBRE]), ..Default::default() });
    assert_eq!(again(&strict, &fresh, 1, false), (0, None), "it may not be there");

    for keeping in [
        Steering { strategy: PathStrategy::Sticky, links: Links::Prefer(vec![FIBRE]), ..Default::default() },
        Steering {
            strategy: PathStrategy::Prefer,
            on_failback: OnFailback::Keep,
            links: Links::Prefer(vec![FIBRE]),
            ..Default::default()
        },
    ] {
        let keeping = by(keeping);
        assert_eq!(again(&keeping, &all, 2, true), (2, Some(Stay::Kept)));
        assert_eq!(again(&keeping, &sick, 1, true), (0, None), "a degraded path will not do");
    }
}

#[test]
fn a_path_that_measures_little_better_draws_no_flows() {
    let best = rules(Steering { strategy: PathStrategy::Best, ..Steering::default() });
    let on = |score| Candidate { score: Some(score), ..good(DSL) };
    let paths = |least, score| [Candidate { score: Some(least), ..good(FIBRE) }, on(score)];
    assert_eq!(again(&best, &paths(200_000, 220_000), 1, true), (1, Some(Stay::Margin)));
    assert_eq!(again(&best, &paths(200_000, 220_001), 1, true), (0, None));
    assert_eq!(again(&best, &paths(200_000, 190_000), 1, true), (1, Some(Stay::AmongBest)));
    // Of what nobody hears, ten milliseconds, a tenth is nothing.
    assert_eq!(again(&best, &paths(10_000, 20_000), 1, true), (1, Some(Stay::Margin)));
    assert_eq!(again(&best, &paths(10_000, 20_001), 1, true), (0, None));
}

#[test]
fn a_path_that_measures_better_draws_no_flows_while_it_may_lose_too_much_for_that() {
    let best = rules(Steering { strategy: PathStrategy::Best, ..Steering::default() });
    let paths = |doubt| {
        [Candidate { score: Some(20_000), doubt, ..good(FIBRE) }, Candidate { score: Some(200_000), ..good(DSL) }]
    };
    assert_eq!(again(&best, &paths(0), 1, true), (0, None));
    assert_eq!(again(&best, &paths(150_000), 1, true), (0, None), "even so it is better");
    assert_eq!(again(&best, &paths(170_000), 1, true), (1, Some(Stay::Doubt)));
    assert_eq!(choose(&best, &flow(1), &paths(u32::MAX)).path, Some(PathId(0)), "a new flow goes by what is known");
    // To be down, or to miss what the rule asks for, is reason enough.
    let sick = paths(170_000).map(|one| Candidate {
        verdict: if one.score == Some(200_000) { Verdict::Degraded } else { one.verdict },
        ..one
    });
    assert_eq!(again(&best, &sick, 1, true), (0, None));
}

#[test]
fn a_path_in_doubt_keeps_no_flow_from_another_that_is_surely_better() {
    let best = rules(Steering { strategy: PathStrategy::Best, ..Steering::default() });
    let paths = |doubt| {
        [
            Candidate { score: Some(20_000), doubt: 600_000, ..good(FIBRE) },
            Candidate { score: Some(25_000), doubt, ..good(LTE) },
            Candidate { score: Some(200_000), ..good(DSL) },
        ]
    };
    let (fibre, dsl, lte) = (FIBRE.0, DSL.0, LTE.0);
    assert_eq!(again(&best, &paths(0), dsl, true), (lte, None));
    assert_eq!(again(&best, &paths(0), dsl, false), (dsl, Some(Stay::Dwell)));
    assert_eq!(again(&best, &paths(0), lte, true), (lte, Some(Stay::Margin)), "and there it rests");
    assert_eq!(again(&best, &paths(170_000), dsl, true), (dsl, Some(Stay::Doubt)), "it may lose as much");
    assert_eq!(
        again(&best, &paths(0), fibre, true),
        (fibre, Some(Stay::AmongBest)),
        "for what is sure alone none goes"
    );
    let second = Candidate { path: PathId(9), score: Some(40_000), ..good(LTE) };
    let four: Vec<Candidate> = paths(0).into_iter().chain([second]).collect();
    assert_eq!(again(&best, &four, dsl, true), (lte, None), "the surest of two");
    let fresh = paths(0).map(|one| Candidate { settled: one.score != Some(25_000), ..one });
    assert_eq!(again(&best, &fresh, dsl, true), (dsl, Some(Stay::HoldDown)));
}

#[test]
fn a_score_is_in_doubt_by_what_the_path_may_lose_beyond_what_is_certain_and_beyond_the_best() {
    let permille = |value| Permille::new(value).unwrap();
    let recent = |least, most| Quality {
        recent: Some(Recent {
            rtt: Duration::from_millis(20),
            jitter: Duration::ZERO,
            loss: permille(least),
            loss_least: permille(least),
            loss_most: permille(most),
        }),
        ..Quality::default()
    };
    assert_eq!(recent(0, 30).doubt_beside(permille(12)), 180_000);
    assert_eq!(recent(0, 12).doubt_beside(permille(12)), 0);
    assert_eq!(recent(20, 30).doubt_beside(permille(12)), 100_000);
    assert_eq!(Quality::default().doubt_beside(permille(12)), 9_880_000, "of what was never measured nothing is known");
}

#[test]
fn a_drained_path_gets_no_new_flow_and_lets_its_own_go_when_they_have_paused() {
    let drained = Candidate { drained: true, ..good(FIBRE) };
    let sick = Candidate { verdict: Verdict::Degraded, ..good(DSL) };
    let present = |let_go| Present { path: drained.path, rule: None, dwelt: true, let_go };
    for port in 0..100 {
        let key = flow(port).key;
        let choice = choose_by(None, &key, &[drained, sick], None);
        assert_eq!((choice.path, choice.standings[0]), (Some(sick.path), Standing::Drained), "health says nothing");
        let waits = choose_by(None, &key, &[drained, sick], Some(present(false)));
        assert_eq!((waits.path, waits.stay), (Some(drained.path), Some(Stay::Draining)));
        let goes = choose_by(None, &key, &[drained, sick], Some(present(true)));
        assert_eq!((goes.path, goes.stay), (Some(sick.path), None));
    }
}

#[test]
fn what_has_nowhere_else_to_go_stays_on_a_drained_path() {
    let drained = Candidate { drained: true, ..good(FIBRE) };
    let down = Candidate { verdict: Verdict::Down, ..good(DSL) };
    assert_eq!(choose_by(None, &flow(1).key, &[drained, down], None).path, Some(drained.path));
    let strict = rules(Steering { links: Links::Strict(vec![FIBRE]), ..Steering::default() });
    let matched = strict.first_match(&flow(1));
    let choice = choose_by(matched, &flow(1).key, &[drained, good(DSL)], None);
    assert_eq!((choice.path, choice.standings[1]), (Some(drained.path), Standing::NotAllowed));
    let prefers = rules(Steering { links: Links::Prefer(vec![FIBRE]), ..Steering::default() });
    let choice = choose_by(prefers.first_match(&flow(1)), &flow(1).key, &[drained, good(DSL)], None);
    assert_eq!((choice.path, choice.why), (Some(good(DSL).path), Why::FellBackNoLink { among: 1 }));
}

fn any_candidates() -> impl Strategy<Value = Vec<Candidate>> {
    let verdict =
        prop_oneof![Just(Verdict::Healthy), Just(Verdict::Unknown), Just(Verdict::Degraded), Just(Verdict::Down)];
    let measured = (0u16..60, 10u64..500, 0u64..60, any::<bool>())
        .prop_map(|(loss, rtt, jitter, known)| if known { quality(loss, rtt, jitter) } else { Quality::default() });
    let doubt = prop_oneof![Just(0u32), 0u32..400_000];
    let one = (0u16..3, verdict, 1u8..4, measured, doubt, any::<[bool; 4]>());
    let one = one.prop_map(|(link, verdict, preference, quality, doubt, [metered, last_resort, settled, drained])| {
        let measured = Candidate { doubt, ..measuring(LinkId(link), quality) };
        Candidate { verdict, preference, metered, last_resort, settled, drained, ..measured }
    });
    proptest::collection::vec(one, 1..4).prop_map(|mut all| {
        (0..).zip(&mut all).for_each(|(path, candidate)| candidate.path = PathId(path));
        all
    })
}

fn any_steering() -> impl Strategy<Value = Steering> {
    let links = prop_oneof![
        Just(Links::Any),
        Just(Links::Prefer(vec![DSL, LTE])),
        Just(Links::Strict(vec![LTE])),
        Just(Links::Prefer(vec![FIBRE]))
    ];
    let sla = prop_oneof![Just(None), Just(Some(VOICE)), Just(Some(SlaId(3)))];
    (links, 0usize..5, sla, any::<bool>()).prop_map(|(links, strategy, sla, keep)| Steering {
        links,
        strategy: PathStrategy::ALL[strategy],
        sla,
        on_failback: if keep { OnFailback::Keep } else { OnFailback::Move },
        set_dscp: None,
    })
}

proptest! {
    #[test]
    fn whoever_chooses_again_at_once_stays(
        steering in any_steering(), candidates in any_candidates(), port in any::<u16>(),
        dwelt in any::<bool>(), let_go in any::<bool>()
    ) {
        let rules = rules(steering.clone());
        let flow = flow(port);
        let matched = rules.first_match(&flow);
        let first = choose_by(matched, &flow.key, &candidates, None);
        prop_assert_eq!(first.path.is_some(), first.why.drop_reason().is_none());
        let is_up = |candidate: &Candidate| candidate.verdict != Verdict::Down;
        match steering.links {
            Links::Strict(_) => {}
            Links::Any | Links::Prefer(_) => {
                prop_assert_eq!(first.path.is_some(), candidates.iter().any(is_up), "never none");
            }
        }
        // From wherever it is, a flow comes to rest with its second choice at the latest.
        for candidate in &candidates {
            let present = Present { path: candidate.path, rule: Some(RuleId(0)), dwelt, let_go };
            let second = choose_by(matched, &flow.key, &candidates, Some(present));
            prop_assert_eq!(second.path.is_some(), first.path.is_some());
            let Some(path) = second.path else { continue };
            let chosen = candidates.iter().find(|candidate| candidate.path == path).unwrap();
            prop_assert!(is_up(chosen));
            if path != candidate.path {
                prop_assert!(second.best & (1 << path.0) != 0, "it moves only to one of the best");
            }
            let third = choose_by(matched, &flow.key, &candidates, Some(Present { path, ..present }));
            prop_assert_eq!(third.path, second.path);
        }
    }
}
