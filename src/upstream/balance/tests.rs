#![allow(clippy::unwrap_used)]
use super::*;

const KEYS: u64 = 10_000;

/// Servers with these weights that nobody uses.
fn servers(weights: &[u32]) -> Vec<Choice> {
    let server = |(place, weight): (usize, &u32)| Choice {
        place,
        weight: weight * 1000,
        used: 0,
        hash: hash(format!("http://10.0.0.{place}:80").as_bytes()),
    };
    weights.iter().enumerate().map(server).collect()
}

fn turns(servers: usize) -> Turns {
    let mut turns = Turns::default();
    turns.reset(servers);
    turns
}

fn places(choices: &[Choice]) -> Vec<usize> {
    choices.iter().map(|choice| choice.place).collect()
}

/// Where key number `n` goes.
fn server_of(n: u64, mut choices: Vec<Choice>) -> usize {
    let key = Some(hash(format!("client-{n}").as_bytes()));
    order(Balance::HashClient, key, &mut Turns::default(), &mut choices);
    choices[0].place
}

#[test]
fn a_round_is_mixed_and_has_each_by_its_weight() {
    let mut turns = turns(3);
    let mut next = || {
        let mut choices = servers(&[5, 1, 1]);
        order(Balance::RoundRobin, None, &mut turns, &mut choices);
        choices[0].place
    };
    let round: Vec<usize> = (0..7).map(|_| next()).collect();
    assert_eq!(round, [0, 0, 1, 0, 2, 0, 0]);
    assert_eq!((0..7).map(|_| next()).collect::<Vec<_>>(), round);
}

#[test]
fn the_second_in_a_round_is_the_next_one_due() {
    let mut turns = turns(3);
    let mut choices = servers(&[1, 1, 1]);
    order(Balance::RoundRobin, None, &mut turns, &mut choices);
    assert_eq!(places(&choices), [0, 1, 2]);
    let mut choices = servers(&[1, 1, 1]);
    order(Balance::RoundRobin, None, &mut turns, &mut choices);
    assert_eq!(places(&choices), [1, 2, 0]);
}

#[test]
fn the_fewest_connections_for_the_weight() {
    let mut turns = turns(3);
    let mut used = [0; 3];
    for _ in 0..70 {
        let mut choices = servers(&[4, 2, 1]);
        choices.iter_mut().for_each(|choice| choice.used = used[choice.place]);
        order(Balance::LeastConnections, None, &mut turns, &mut choices);
        used[choices[0].place] += 1;
    }
    assert_eq!(used, [40, 20, 10]);
}

#[test]
fn ties_of_the_fewest_connections_take_turns() {
    let mut turns = turns(3);
    let mut next = || {
        let mut choices = servers(&[1, 1, 1]);
        choices[0].used = 9;
        order(Balance::LeastConnections, None, &mut turns, &mut choices);
        choices[0].place
    };
    assert_eq!([next(), next(), next(), next()], [1, 2, 1, 2]);
}

#[test]
fn of_two_that_are_drawn_the_one_with_fewer_connections() {
    let mut first = [0; 3];
    for _ in 0..3_000 {
        let mut choices = servers(&[1, 1, 1]);
        choices[2].used = 5;
        order(Balance::RandomTwo, None, &mut Turns::default(), &mut choices);
        assert_eq!(choices.len(), 3);
        first[choices[0].place] += 1;
    }
    assert_eq!(first[2], 0, "one of two is always better");
    assert!(first[0] > 1_200 && first[1] > 1_200, "{first:?}");
}

#[test]
fn draws_are_by_weight() {
    let mut first = [0; 2];
    for _ in 0..4_000 {
        let mut choices = servers(&[3, 1]);
        by_draw(&mut choices, |_| rand::random());
        first[choices[0].place] += 1;
    }
    assert!((2_700..3_300).contains(&first[0]), "{first:?}");
}

#[test]
fn keys_are_spread_by_weight() {
    let mut count = [0_u64; 3];
    for n in 0..KEYS {
        count[server_of(n, servers(&[2, 1, 1]))] += 1;
    }
    assert!((4_800..5_200).contains(&count[0]), "{count:?}");
    assert!((2_300..2_700).contains(&count[1]) && (2_300..2_700).contains(&count[2]), "{count:?}");
}

#[test]
fn a_server_that_goes_takes_its_own_keys_with_it_and_no_others() {
    let mut moved = 0;
    for n in 0..KEYS {
        let before = server_of(n, servers(&[1, 1, 1, 1, 1]));
        let mut left = servers(&[1, 1, 1, 1, 1]);
        left.remove(2);
        let after = server_of(n, left);
        assert!(before == after || before == 2, "a key of server {before} went to {after}");
        moved += u64::from(before != after);
    }
    assert!((KEYS * 18 / 100..KEYS * 22 / 100).contains(&moved), "{moved} of {KEYS} keys moved");
}

#[test]
fn a_server_that_starts_slowly_gets_keys_of_its_own_only() {
    for n in 0..KEYS {
        let before = server_of(n, servers(&[1, 1, 1]));
        let mut slow = servers(&[1, 1, 1]);
        slow[1].weight = 300;
        let after = server_of(n, slow);
        assert!(before == after || before == 1, "a key of server {before} went to {after}");
    }
}

/// Of every run and machine: clients would move with each restart otherwise.
#[test]
fn hashes_are_fixed() {
    assert_eq!(hash(b"foobar"), 0x8594_4171_f739_67e8);
    assert_eq!((0..12).map(|n| server_of(n, servers(&[1, 1, 1]))).collect::<Vec<_>>(), EXPECTED);
}

const EXPECTED: [usize; 12] = [0, 1, 0, 2, 0, 2, 2, 2, 2, 0, 0, 0];
