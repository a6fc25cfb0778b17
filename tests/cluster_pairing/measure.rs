//! How many commands a match costs Redis, and how long it takes. Said, not judged.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::support::redis::Redis;
use crate::support::{Client, Setup, matched};
use crate::{AVAILABLE, servers, sum};

const TIME: Duration = Duration::from_secs(10);
const LEAVE: &str = r#"{"type":"leave"}"#;

/// One who runs, until this goes out of scope.
struct Running<'a>(&'a AtomicUsize);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Clients that wait, are matched, leave and wait again, as fast as they can; on 1, 2 and 3 hosts. With one client on each
/// all partners are on another host.
#[test]
#[ignore = "a measurement: cargo test --release --test cluster_pairing -- --ignored --nocapture"]
fn commands_per_match() {
    for (count, clients) in [(1, 20), (2, 20), (3, 20), (2, 1), (3, 1)] {
        let redis = Redis::start();
        let hosts = servers(Setup::EPOLL_1, count, &redis, &[("REQUEUE_ON_PARTNER_LEAVE", "false")]);
        let names = [
            "parlor_matches_total",
            "parlor_pairing_distant_matches_total",
            "parlor_redis_commands_total",
            "parlor_pairing_commands_total",
        ];
        let before = names.map(|name| sum(&hosts, name));
        let start = Instant::now();
        let running = AtomicUsize::new(count * clients);
        std::thread::scope(|scope| {
            for at in 0..count * clients {
                let (mut client, running) = (Client::connect(&hosts[at % count]), &running);
                scope.spawn(move || {
                    let _running = Running(running);
                    while start.elapsed() < TIME {
                        client.send(AVAILABLE);
                        while matched(&client.next("matched")).is_none() {}
                        client.send(LEAVE);
                    }
                });
            }
            // The last one finds a partner as well.
            let mut last = Client::connect(&hosts[0]);
            while running.load(Ordering::Relaxed) > 0 {
                if start.elapsed() >= TIME {
                    last.send(AVAILABLE);
                }
                std::thread::sleep(Duration::from_millis(100));
                last.send(LEAVE);
                last.drain();
            }
        });
        let mut after = names.map(|name| sum(&hosts, name));
        after.iter_mut().zip(before).for_each(|(now, then)| *now -= then);
        let [told, distant, commands, pairing] = after;
        let matches = told as f64 / 2.0;
        println!(
            "{count} hosts, {clients} clients on each: {:.0} matches a second, {:.2} % of them over hosts; {:.3} commands a match, {:.3} of them \
             of the list",
            matches / TIME.as_secs_f64(),
            100.0 * distant as f64 / matches,
            commands as f64 / matches,
            pairing as f64 / matches,
        );
    }
}
