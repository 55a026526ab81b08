//! What our copy of `h2` counts: how often something happened within ten seconds, and how streams have ended.

#[path = "../../vendor/h2/src/proto/pace.rs"]
mod counted;

use std::time::{Duration, Instant};

use counted::{Endings, Lately};

/// So long after the beginning.
fn at(began: Instant, milliseconds: u64) -> Instant {
    began + Duration::from_millis(milliseconds)
}

#[test]
fn r_003_what_is_within_ten_seconds_is_counted_across_every_border() {
    let (began, mut lately) = (Instant::now(), Lately::default());
    assert!(!lately.exceeds(500, began));
    assert!((1..500).all(|_| !lately.exceeds(500, at(began, 8900))), "five hundred are not too many");
    assert!(lately.exceeds(500, at(began, 9900)), "but one more is, however they are spread");
    assert_eq!(lately.total(at(began, 10_000)), 500, "the first one is over");
    assert_eq!(lately.total(at(began, 17_999)), 500);
    assert_eq!(lately.total(at(began, 18_000)), 1);
    assert_eq!(lately.total(at(began, 20_000)), 0);
    assert_eq!(lately.total(at(began, 3_600_000)), 0);
}

#[test]
fn r_003_who_keeps_to_the_bound_is_never_cut() {
    let (began, mut lately) = (Instant::now(), Lately::default());
    assert!((0..50_000).all(|index| !lately.exceeds(500, at(began, index * 20))), "500 in each ten seconds");
}

#[test]
fn r_003_a_clock_that_stands_or_steps_back_counts_on() {
    let (began, mut lately) = (Instant::now() + Duration::from_secs(60), Lately::default());
    lately.count(began);
    lately.count(began.checked_sub(Duration::from_secs(30)).unwrap());
    assert_eq!(lately.total(began), 2);
    (0..100_000).for_each(|_| lately.count(began));
    assert_eq!(lately.total(began), usize::from(u16::MAX), "and never overflows");
}

#[test]
fn r_003_a_hundred_streams_that_were_cut_are_too_many_unless_as_many_came_to_their_end() {
    let began = Instant::now();
    let mut endings = Endings::of(Some(100));
    (0..99).for_each(|_| endings.cut(began));
    assert!(!endings.exceeded(began));
    endings.cut(began);
    assert!(endings.exceeded(began), "the hundredth");
    (0..99).for_each(|_| endings.whole(began));
    assert!(endings.exceeded(began), "less than half are whole");
    endings.whole(began);
    assert!(!endings.exceeded(began), "half are");
}

#[test]
fn r_003_what_came_to_its_end_before_the_first_reset_counts() {
    let began = Instant::now();
    let mut endings = Endings::of(None);
    (0..1000).for_each(|index| endings.whole(at(began, index * 8)));
    (0..900).for_each(|_| endings.cut(at(began, 8500)));
    assert!(!endings.exceeded(at(began, 8500)), "a hundred more are whole");
    assert!(endings.exceeded(at(began, 11_000)), "those of the first seconds are saved up by nobody");
}

#[test]
fn r_003_what_is_long_over_condemns_nobody() {
    let began = Instant::now();
    let mut endings = Endings::of(Some(10));
    (0..200).for_each(|_| endings.cut(began));
    assert!(endings.exceeded(at(began, 9000)) && !endings.exceeded(at(began, 10_000)));
}

#[test]
fn r_003_resets_of_what_is_over_have_a_bound_of_their_own() {
    let began = Instant::now();
    let mut endings = Endings::of(Some(100));
    (0..499).for_each(|_| endings.late(began));
    assert!(!endings.exceeded(began));
    endings.late(began);
    assert!(endings.exceeded(began));
}

#[test]
fn r_003_more_streams_at_once_may_end_at_once() {
    let began = Instant::now();
    let mut endings = Endings::of(Some(250));
    assert_eq!(endings.most(), 250);
    (0..249).for_each(|_| endings.cut(began));
    assert!(!endings.exceeded(began), "a page of 250 streams that nobody wants to see any more");
    endings.cut(began);
    assert!(endings.exceeded(began));
    assert_eq!(Endings::of(Some(1)).most(), 100);
}
