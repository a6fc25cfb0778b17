//! `compare`: one scenario against two servers in turns, so that whatever else happens on this host happens to both.

use std::collections::BTreeMap;

use serde::Serialize;

use super::pipe::{self, PipePlan};
use super::run::{self, Plan, rate_limit_warning, ratio};
use crate::failure::Failure;
use crate::options::{CommonArgs, CompareArgs, Compared};
use crate::report::{self, Figures, Row};
use crate::servers::Servers;

/// A figure that is set beside that of another server.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Measure {
    /// Its name in the JSON file.
    pub(crate) key: &'static str,
    /// Its name in the table.
    pub(crate) what: &'static str,
    /// Its unit.
    pub(crate) unit: &'static str,
    /// The figure; none where it was not measured.
    pub(crate) value: Option<f64>,
    /// Only the first round counts: later ones find what earlier ones have left.
    pub(crate) of_first_round: bool,
}

impl Measure {
    /// A figure of which the median over the rounds counts.
    pub(crate) fn new(key: &'static str, what: &'static str, value: Option<f64>, unit: &'static str) -> Self {
        Self { key, what, unit, value, of_first_round: false }
    }
}

/// Figures of a round.
pub(crate) trait Round: Figures {
    /// What is compared, in the same order each time.
    fn measures(&self) -> Vec<Measure>;

    /// Messages that the server's rate limit refused.
    fn rate_limited(&self) -> u64 {
        0
    }
}

#[derive(Serialize)]
struct Options<T> {
    a: String,
    b: String,
    rounds: usize,
    #[serde(flatten)]
    traffic: T,
    #[serde(flatten)]
    common: CommonArgs,
}

/// The figures of a comparison.
#[derive(Debug, Serialize)]
struct CompareFigures<R> {
    a: BTreeMap<&'static str, f64>,
    b: BTreeMap<&'static str, f64>,
    a_rounds: Vec<R>,
    b_rounds: Vec<R>,
}

/// Runs the comparison and reports it.
pub(crate) fn run(options: &CompareArgs) -> Result<u8, Failure> {
    match options.scenario {
        Compared::Relay => run_relay(options),
        Compared::Pipe => run_pipe(options),
    }
}

fn run_relay(options: &CompareArgs) -> Result<u8, Failure> {
    if options.stream.is_given() {
        return Err(Failure::Options("--frame-bytes and --mode go with --scenario pipe".to_owned()));
    }
    let traffic = options.traffic.resolve();
    let plan = |servers| Plan {
        dialect: options.dialect,
        servers,
        traffic: traffic.clone(),
        threads: options.common.threads,
        driver: options.common.io_driver,
    };
    let servers = servers(options)?;
    let urls = [servers[0].urls(), servers[1].urls()];
    let [a, b] = servers.map(plan);
    alternate(options, urls, &traffic, || run::measure(&a), || run::measure(&b))
}

fn run_pipe(options: &CompareArgs) -> Result<u8, Failure> {
    let traffic = options.stream.resolve(&options.traffic)?;
    let (threads, driver) = (options.common.threads, options.common.io_driver);
    let plan = |servers| PipePlan { servers, traffic: traffic.clone(), threads, driver };
    let servers = servers(options)?;
    let urls = [servers[0].urls(), servers[1].urls()];
    let [a, b] = servers.map(plan);
    alternate(options, urls, &traffic, || pipe::measure(&a), || pipe::measure(&b))
}

fn servers(options: &CompareArgs) -> Result<[Servers; 2], Failure> {
    let both = options.servers()?;
    both.iter().try_for_each(Servers::await_relations)?;
    Ok(both)
}

fn alternate<R: Round>(
    options: &CompareArgs,
    [a_urls, b_urls]: [String; 2],
    traffic: &impl Serialize,
    a: impl Fn() -> Result<R, Failure>,
    b: impl Fn() -> Result<R, Failure>,
) -> Result<u8, Failure> {
    let (mut a_rounds, mut b_rounds) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        a_rounds.push(a()?);
        b_rounds.push(b()?);
    }
    let figures = CompareFigures::new(a_rounds, b_rounds);
    let read =
        Options { a: a_urls, b: b_urls, rounds: options.rounds, traffic, common: options.common.clone() };
    report::publish("compare", &read, &figures, options.common.json.as_deref())
}

/// The median of each measure over the rounds; those that a round lacks are left out.
fn medians<R: Round>(rounds: &[R]) -> Vec<Measure> {
    let measures: Vec<_> = rounds.iter().map(R::measures).collect();
    let Some(first) = measures.first() else { return Vec::new() };
    let over_rounds = |(place, measure): (usize, &Measure)| {
        let values: Option<Vec<f64>> = measures.iter().map(|round| round[place].value).collect();
        let value = if measure.of_first_round { measure.value } else { values.map(median) };
        Measure { value, ..*measure }
    };
    first.iter().enumerate().map(over_rounds).collect()
}

impl<R: Round> CompareFigures<R> {
    fn new(a_rounds: Vec<R>, b_rounds: Vec<R>) -> Self {
        let by_key = |rounds: &[R]| {
            medians(rounds).into_iter().filter_map(|measure| Some((measure.key, measure.value?))).collect()
        };
        Self { a: by_key(&a_rounds), b: by_key(&b_rounds), a_rounds, b_rounds }
    }

    fn all(&self) -> impl Iterator<Item = &R> {
        self.a_rounds.iter().chain(&self.b_rounds)
    }
}

impl<R: Round> Figures for CompareFigures<R> {
    fn rows(&self) -> Vec<Row> {
        let mut rows = Vec::new();
        for measure in self.a_rounds.first().map(R::measures).unwrap_or_default() {
            let Measure { key, what, unit, .. } = measure;
            let (a, b) = (self.a.get(key), self.b.get(key));
            rows.extend(a.map(|a| Row::quantity(&format!("{what}, a"), *a, unit)));
            rows.extend(b.map(|b| Row::quantity(&format!("{what}, b"), *b, unit)));
            let both = a.zip(b).map(|(a, b)| ratio(*a, *b));
            rows.extend(both.map(|ratio| Row::quantity(&format!("{what}, a / b"), ratio, "")));
        }
        rows
    }

    fn warnings(&self) -> Vec<String> {
        let limited: u64 = self.all().map(R::rate_limited).sum();
        let mut warnings: Vec<_> = (limited > 0).then(|| rate_limit_warning(limited)).into_iter().collect();
        let mut others: Vec<_> =
            self.all().filter(|round| round.rate_limited() == 0).flat_map(R::warnings).collect();
        others.sort();
        others.dedup();
        warnings.extend(others);
        warnings
    }

    fn exit_code(&self) -> u8 {
        self.all().map(R::exit_code).max().unwrap_or(0)
    }
}

/// The middle value; of an even number the mean of the two in the middle; 0 of none.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    let (half, odd) = (values.len() / 2, values.len() % 2 == 1);
    match values.get(half) {
        None => 0.0,
        Some(middle) if odd => *middle,
        Some(middle) => (middle + values[half - 1]) / 2.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, Serialize)]
    struct Fake {
        throughput: f64,
        bytes: Option<f64>,
    }

    impl Figures for Fake {
        fn rows(&self) -> Vec<Row> {
            Vec::new()
        }
    }

    impl Round for Fake {
        fn measures(&self) -> Vec<Measure> {
            let bytes = Measure::new("bytes", "memory", self.bytes, "B");
            vec![
                Measure::new("throughput", "throughput", Some(self.throughput), "/s"),
                Measure { of_first_round: true, ..bytes },
            ]
        }
    }

    #[test]
    fn medians_are_in_the_middle() {
        assert_eq!(median(vec![3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), 2.5);
        assert_eq!((median(vec![5.0]), median(Vec::new())), (5.0, 0.0));
    }

    #[test]
    fn ratios_are_a_over_b() {
        let rounds = |throughputs: [f64; 3], bytes| {
            throughputs.map(|throughput| Fake { throughput, bytes }).into_iter().collect::<Vec<_>>()
        };
        let mut a = rounds([300.0, 100.0, 900.0], Some(1.0));
        a[1].bytes = Some(7.0);
        let figures = CompareFigures::new(a, rounds([200.0; 3], None));
        let rows = figures.rows();
        assert!(rows.contains(&Row::quantity("throughput, a / b", 1.5, "")));
        assert!(rows.contains(&Row::quantity("memory, a", 1.0, "B")));
        assert_eq!(rows.len(), 4);
        assert_eq!((figures.a["throughput"], figures.exit_code()), (300.0, 0));
    }
}
