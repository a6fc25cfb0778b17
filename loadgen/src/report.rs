//! The table on stdout and the JSON file.

use std::fs;
use std::path::Path;

use serde::Serialize;

use crate::failure::Failure;

/// A line of the table: what, how much, and the unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Row {
    what: String,
    value: String,
    unit: &'static str,
}

impl Row {
    /// A count.
    pub(crate) fn count(what: &str, value: u64, unit: &'static str) -> Self {
        Self { what: what.to_owned(), value: grouped(value), unit }
    }

    /// A quantity; small ones keep decimals.
    pub(crate) fn quantity(what: &str, value: f64, unit: &'static str) -> Self {
        Self { what: what.to_owned(), value: rounded(value), unit }
    }

    /// Any text.
    pub(crate) fn text(what: &str, value: impl Into<String>) -> Self {
        Self { what: what.to_owned(), value: value.into(), unit: "" }
    }
}

/// Figures of a scenario.
pub(crate) trait Figures: Serialize {
    /// The lines of the table.
    fn rows(&self) -> Vec<Row>;

    /// What makes the figures unfit to be quoted.
    fn warnings(&self) -> Vec<String> {
        Vec::new()
    }

    /// The process's exit code.
    fn exit_code(&self) -> u8 {
        0
    }
}

#[derive(Serialize)]
struct Document<'a, O, F> {
    scenario: &'a str,
    options: &'a O,
    figures: &'a F,
}

/// Writes the table, the warnings and, where a path is given, the JSON file; returns the exit code.
pub(crate) fn publish<O: Serialize, F: Figures>(
    scenario: &str,
    options: &O,
    figures: &F,
    json: Option<&Path>,
) -> Result<u8, Failure> {
    if let Some(path) = json {
        let document = Document { scenario, options, figures };
        let text =
            serde_json::to_string_pretty(&document).map_err(|error| Failure::System(error.to_string()))?;
        fs::write(path, text + "\n")
            .map_err(|error| Failure::System(format!("{} cannot be written: {error}", path.display())))?;
    }
    print(&table(&figures.rows()), &figures.warnings());
    Ok(figures.exit_code())
}

#[expect(clippy::print_stdout, clippy::print_stderr, reason = "this is where the report is written")]
fn print(table: &str, warnings: &[String]) {
    print!("{table}");
    for warning in warnings {
        eprintln!("\n*** WARNING: {warning}");
    }
}

fn table(rows: &[Row]) -> String {
    let width = |of: fn(&Row) -> &str| rows.iter().map(|row| of(row).chars().count()).max().unwrap_or(0);
    let (what, value) = (width(|row| &row.what), width(|row| &row.value));
    rows.iter()
        .map(|row| {
            let line = format!("{:what$}  {:>value$} {}", row.what, row.value, row.unit);
            format!("{}\n", line.trim_end())
        })
        .collect()
}

/// A number with a comma between groups of three digits.
fn grouped(number: u64) -> String {
    let digits = number.to_string();
    let mut text = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// Three significant digits or all of the whole number.
fn rounded(number: f64) -> String {
    match number {
        number if !number.is_finite() => "-".to_owned(),
        number if number.abs() >= 100.0 => grouped(number.round().max(0.0) as u64),
        number if number.abs() >= 10.0 => format!("{number:.1}"),
        number if number.abs() >= 1.0 => format!("{number:.2}"),
        number => format!("{number:.3}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(grouped), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!(
            [0.5, 1.234, 12.34, 1234.5, f64::NAN].map(rounded),
            ["0.500", "1.23", "12.3", "1,235", "-"]
        );
    }

    #[test]
    fn the_table_is_aligned() {
        let rows =
            [Row::count("messages", 1_000, "/s"), Row::text("who", "x"), Row::quantity("p50", 1.5, "µs")];
        assert_eq!(table(&rows), "messages  1,000 /s\nwho           x\np50        1.50 µs\n");
    }
}
