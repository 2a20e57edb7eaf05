//! Small charts, as SVG without styles of its own.

use std::fmt::Write;

use maud::{Markup, html};

const WIDTH: usize = 96;
const HEIGHT: usize = 24;
/// How many points a line has, at most: more can't be seen.
const POINTS: usize = 32;

/// A line through values, from the oldest to the newest, with a description for those who can't see it. Nothing if there are
/// less than two.
pub(crate) fn line(values: &[u64], description: &str) -> Markup {
    if values.len() < 2 {
        return html! {};
    }
    let points = points(&peaks(values));
    html! {
        svg.chart viewBox=(format!("0 0 {WIDTH} {HEIGHT}")) role="img" aria-label=(description) {
            polygon points=(format!("0,{HEIGHT} {points} {WIDTH},{HEIGHT}")) {}
            polyline points=(points) {}
        }
    }
}

/// The highest of each few values.
fn peaks(values: &[u64]) -> Vec<u64> {
    let few = values.len().div_ceil(POINTS).max(1);
    // From the newest, so that a peak stays where it is.
    let few = values.rchunks(few);
    let mut peaks: Vec<_> = few.filter_map(|few| few.iter().copied().max()).collect();
    peaks.reverse();
    peaks
}

fn points(values: &[u64]) -> String {
    let most = values.iter().copied().max().unwrap_or_default().max(1) as f64;
    let last = values.len().saturating_sub(1).max(1) as f64;
    let mut points = String::new();
    for (place, value) in values.iter().enumerate() {
        let x = place as f64 / last * WIDTH as f64;
        let y = HEIGHT as f64 - 2.0 - (*value as f64 / most) * (HEIGHT as f64 - 4.0);
        // A string takes any text.
        let _ = write!(points, "{x:.0},{y:.0} ");
    }
    points.trim_end().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_goes_from_edge_to_edge_and_a_chart_of_zeros_is_flat() {
        assert_eq!(points(&[0, 5, 10]), "0,22 48,12 96,2");
        assert_eq!(points(&[0, 0]), "0,22 96,22");
        assert!(!line(&[1], "one").into_string().contains("svg"));
    }

    #[test]
    fn a_line_of_many_values_keeps_its_peaks_and_its_end() {
        let mut values = [1; 120];
        (values[60], values[119]) = (9, 5);
        let peaks = peaks(&values);
        assert!(peaks.len() <= POINTS && peaks.contains(&9), "{peaks:?}");
        assert_eq!(peaks.last(), Some(&5));
        assert_eq!(super::peaks(&[3, 2]), [3, 2]);
    }
}
