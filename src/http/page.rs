//! `/`: a small page for people.

use std::fmt::Write;

use super::Overview;

const STYLE: &str = "
:root { color-scheme: light dark; font: 16px/1.5 system-ui, sans-serif }
body { max-width: 40rem; margin: 4rem auto; padding: 0 1.5rem }
h1 { margin: 0; font-size: 2rem; letter-spacing: -.02em }
p { margin: .25rem 0 2rem; opacity: .75 }
dl { display: grid; grid-template-columns: max-content 1fr; gap: .4rem 1.5rem; margin: 0 0 2rem }
dt { opacity: .65 } dd { margin: 0; font-variant-numeric: tabular-nums; overflow-wrap: anywhere }
code { font: .9em ui-monospace, monospace }
";

/// What runs here, its version, how many are connected, the paths it speaks.
pub(super) fn render(overview: &Overview) -> String {
    let driver = overview.decision.driver;
    let mut driver_text = format!("{}, flags {}", driver.name(), driver.flags());
    if !overview.decision.reason.is_empty() {
        driver_text = format!("{driver_text} ({})", overview.decision.reason);
    }
    let rows = [
        ("Clients", overview.clients().to_string()),
        ("Up for", format!("{} s", overview.uptime_s())),
        ("Shards", overview.counters.len().to_string()),
        ("Driver", driver_text),
        ("Instance", overview.instance_id.clone()),
    ];
    let mut list = String::new();
    for (name, value) in rows {
        // Writing to a string does not fail.
        let _ = writeln!(list, "<dt>{name}</dt><dd>{}</dd>", escaped(&value));
    }
    for (path, dialect) in &overview.paths {
        let _ = writeln!(list, "<dt>{dialect}</dt><dd><code>{}</code></dd>", escaped(path));
    }
    format!(
        "<!doctype html>\n<html lang=\"en\">\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width\">\n<title>Parlor</title>\n<style>{STYLE}</style>\n\
         <h1>Parlor {}</h1>\n<p>A WebRTC signaling server.</p>\n<dl>\n{list}</dl>\n\
         <p><a href=\"/healthz\">/healthz</a> · <a href=\"/readyz\">/readyz</a> · <a href=\"/metrics\">/metrics</a></p>\n\
         </html>\n",
        env!("CARGO_PKG_VERSION"),
    )
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
