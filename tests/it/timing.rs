//! Whether the time that a check takes tells anything about the right signature: a test in the manner of dudect
//! (Reparaz, Balasch, Verbauwhede: "Dude, is my code constant time?", 2017).
//!
//! Two classes of signatures of the same length are checked in random order, and each check is timed. Welch's t over the
//! two samples, after cutting off the slowest tenth (interrupts, other processes), grows with the number of samples if
//! there is a difference, and stays small if there is none: dudect takes over 4.5 for suspicious and over 10 for proof.
//! On request, and best in an optimised build on a quiet machine:
//!
//! ```sh
//! cargo test --release --test it -- --ignored --nocapture timing
//! ```

use std::hint::black_box;
use std::io::Write as _;
use std::time::Instant;

use bytes::Bytes;
use finhook::verify::{Keyring, Signature, sign};

use crate::support::SECRET;

const SAMPLES: usize = 1_000_000;
const BATCH: usize = 500;
const PROOF: f64 = 10.0;
const BODY: &[u8] = &[b'x'; 64];

type Mac = [u8; 32];

fn keyring() -> Keyring {
    Keyring::new(&[SECRET.into(), "the secret that is being rotated out".into()])
}

fn parse(mac: &Mac) -> Signature {
    Signature::parse(hex::encode(mac).as_bytes()).unwrap()
}

/// Up to the decision: what comes after it differs for right and wrong ones, as the answer does.
#[test]
#[ignore = "long: measures; run it alone on a quiet machine"]
fn a_check_takes_the_same_time_whether_and_where_a_signature_is_wrong() {
    for (what, classes) in [
        ("right, wrong in every byte", [right(), wrong_from(0)]),
        ("right, wrong in the last byte", [right(), wrong_from(31)]),
        ("wrong in every byte, wrong in the last byte", [wrong_from(0), wrong_from(31)]),
    ] {
        let keyring = keyring();
        let t = welch_t(&classes, parse, |signature| _ = black_box(keyring.matches(signature, BODY)));
        report(what, t);
        assert!(t.abs() < PROOF, "{what}: t = {t}");
    }
}

/// What a forger could time: from the signature to the refusal.
#[test]
#[ignore = "long: measures; run it alone on a quiet machine"]
fn a_refusal_takes_the_same_time_wherever_the_signature_is_wrong() {
    let (keyring, body) = (keyring(), Bytes::from_static(BODY));
    for at in [16, 31] {
        let what = format!("refused: wrong in every byte, wrong from byte {at}");
        let classes = [wrong_from(0), wrong_from(at)];
        let t = welch_t(&classes, parse, |signature| drop(black_box(keyring.verify(signature, body.clone()))));
        report(&what, t);
        assert!(t.abs() < PROOF, "{what}: t = {t}");
    }
}

/// Else the test above could not fail.
#[test]
#[ignore = "long: measures; run it alone on a quiet machine"]
fn a_comparison_that_stops_at_the_first_difference_is_found_out() {
    let right = right();
    let leaky = |mac: &Mac| mac.iter().zip(&right).all(|(a, b)| black_box(a) == black_box(b));
    let t = welch_t(&[wrong_from(0), wrong_from(31)], |mac| *mac, |mac| _ = black_box(leaky(mac)));
    report("a leaky comparison", t);
    assert!(t.abs() > PROOF, "t = {t}");
}

/// Times the call with inputs of the one and the other class, and compares the classes.
fn welch_t<I>(classes: &[Mac; 2], mut prepare: impl FnMut(&Mac) -> I, mut call: impl FnMut(&I)) -> f64 {
    let mut times = [const { Vec::new() }; 2];
    // The first tenth warms up caches and the processor's clock.
    for batch in 0..(SAMPLES + SAMPLES / 10) / BATCH {
        // In batches of both classes mixed, as preparing an input leaves traces of it in the processor.
        let inputs: Vec<_> = std::iter::repeat_with(|| usize::from(fastrand::bool()))
            .map(|class| (class, black_box(prepare(black_box(&classes[class])))))
            .take(BATCH)
            .collect();
        for (class, input) in &inputs {
            let began = Instant::now();
            call(input);
            let nanoseconds = began.elapsed().as_nanos() as f64;
            if batch >= SAMPLES / 10 / BATCH {
                times[*class].push(nanoseconds);
            }
        }
    }
    let mut all = times.concat();
    all.sort_by(f64::total_cmp);
    let slowest = all[all.len() * 9 / 10];
    let [(mean_a, error_a), (mean_b, error_b)] = times.map(|mut sample| {
        sample.retain(|time| *time <= slowest);
        let n = sample.len() as f64;
        let mean = sample.iter().sum::<f64>() / n;
        let variance = sample.iter().map(|time| (time - mean).powi(2)).sum::<f64>() / (n - 1.0);
        (mean, variance / n)
    });
    (mean_a - mean_b) / (error_a + error_b).sqrt()
}

fn report(what: &str, t: f64) {
    let _ = writeln!(std::io::stderr(), "timing: {what}: t = {t:+.2} over {SAMPLES} checks");
}

fn right() -> Mac {
    let header = sign(&SECRET.into(), BODY);
    hex::decode(&header["sha256=".len()..]).unwrap().try_into().unwrap()
}

/// Right before the byte, wrong from there on.
fn wrong_from(byte: usize) -> Mac {
    let mut mac = right();
    mac[byte..].iter_mut().for_each(|byte| *byte ^= 0x55);
    mac
}
