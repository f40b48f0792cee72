//! Charts as SVG, drawn by plotters, each with what stands beside it: a legend, a description for those who hear it, and its figures.
//!
//! Colours are those of the light theme; `report.css` gives each its counterpart in the dark. Series differ by mark as well as by colour.

use crate::markdown::ABSENT;
use anyhow::anyhow;
use plotters::coord::Shift;
use plotters::coord::ranged1d::{KeyPointHint, NoDefaultFormatting, Ranged, ValueFormatter};
use plotters::coord::types::RangedCoordf64;
use plotters::prelude::*;
use serde::Serialize;
use std::ops::Range;

/// Width and height of a chart, in its own units.
const SIZE: (u32, u32) = (400, 250);
const TEXT: (&str, u32) = ("sans-serif", 14);
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const GRID: RGBColor = RGBColor(0xdd, 0xdd, 0xdd);
/// At least 4.5 : 1 on white; told apart with any kind of colour vision, in this order.
const COLOURS: [RGBColor; 8] = [
    RGBColor(0x00, 0x72, 0xb2),
    RGBColor(0xb8, 0x44, 0x00),
    RGBColor(0x00, 0x7a, 0x5a),
    RGBColor(0x9c, 0x2f, 0x6e),
    RGBColor(0x5b, 0x56, 0xa8),
    RGBColor(0x7a, 0x5c, 0x00),
    RGBColor(0x2f, 0x72, 0x82),
    RGBColor(0x66, 0x66, 0x66),
];

/// A chart and what stands beside it.
#[derive(Debug, Serialize)]
pub(super) struct Chart {
    title: String,
    /// What it says, in words.
    description: String,
    svg: String,
    legend: Vec<Key>,
    header: Vec<String>,
    rows: Vec<Vec<String>>,
}

/// An entry of a legend.
#[derive(Debug, Serialize)]
struct Key {
    svg: String,
    name: String,
}

/// A figure at a place, with its interval where it has one.
#[derive(Debug, Clone, Copy)]
pub(super) struct Point {
    pub(super) x: f64,
    pub(super) y: f64,
    pub(super) interval: Option<(f64, f64)>,
}

/// Figures that belong together.
#[derive(Debug, Clone)]
pub(super) struct Series {
    pub(super) name: String,
    pub(super) points: Vec<Point>,
}

/// How the axes are called.
#[derive(Debug, Clone, Copy)]
pub(super) struct Axes<'a> {
    pub(super) x: &'a str,
    pub(super) y: &'a str,
}

/// Lines over a count, such as the iteration: a mark a point, whiskers for its interval. None where there is no point.
pub(super) fn lines(title: &str, axes: Axes<'_>, series: &[Series]) -> anyhow::Result<Option<Chart>> {
    let points = || series.iter().flat_map(|series| &series.points);
    let ends = |point: &Point| point.interval.map_or([point.y, point.y], |(low, high)| [low, high]);
    let Some(x) = extent(points().map(|point| point.x)) else { return Ok(None) };
    let Some(y) = extent(points().flat_map(ends)) else { return Ok(None) };
    let ticks: Vec<f64> = steps(&x).collect();
    let x = x.start - 0.2..x.end + 0.2;
    let svg = draw(|area| {
        let mut chart = frame(area, axes, Ticked::new(x, ticks), padded(y), &|x| format!("{x:.0}"))?;
        // Side by side, where whiskers would hide one another.
        let num = series.iter().filter(|series| series.points.iter().any(|point| point.interval.is_some())).count();
        for (index, series) in series.iter().enumerate() {
            let aside = if index < num { (index as f64 - (num - 1) as f64 / 2.0) * (0.24 / num as f64) } else { 0.0 };
            let points: Vec<Point> = series.points.iter().map(|point| Point { x: point.x + aside, ..*point }).collect();
            let colour = colour(index);
            let line = points.iter().map(|point| (point.x, point.y));
            chart.draw_series(LineSeries::new(line, colour.stroke_width(2)))?;
            let whiskers = points.iter().filter_map(|point| point.interval.map(|interval| (point, interval)));
            chart
                .draw_series(whiskers.map(|(point, (low, high))| {
                    ErrorBar::new_vertical(point.x, low, point.y, high, colour.stroke_width(1), 6)
                }))?;
            // A curve of a hundred steps would be nothing but marks.
            let every = points.len().div_ceil(12).max(1);
            let marked = points.iter().enumerate().filter(|(at, _)| at % every == index % every);
            draw_marks(&mut chart, index, marked.map(|(_, point)| (point.x, point.y)))?;
        }
        Ok(())
    })?;
    Ok(Some(Chart {
        title: title.to_owned(),
        description: format!("{} by {}. {}", axes.y, axes.x, series.iter().map(course).collect::<Vec<_>>().join(" ")),
        svg,
        legend: series
            .iter()
            .enumerate()
            .map(|(index, series)| Key { svg: mark_key(index), name: series.name.clone() })
            .collect(),
        header: std::iter::once(axes.x.to_owned()).chain(series.iter().map(|series| series.name.clone())).collect(),
        rows: rows(series),
    }))
}

/// What bars stand on.
pub(super) enum Places {
    /// Things with names.
    Named(Vec<String>),
    /// So many equal parts of what lies between 0 and 100.
    Bins(usize),
}

impl Places {
    fn names(&self) -> Vec<String> {
        match self {
            Self::Named(names) => names.clone(),
            Self::Bins(num) => (0..*num).map(|bin| format!("{} to {}", 100 * bin / num, 100 * (bin + 1) / num)).collect(),
        }
    }
}

/// Bars that are stacked: a bar a place, a height of each part for each place, parts in their order from below. None where there is nothing.
pub(super) fn bars(title: &str, axes: Axes<'_>, on: &Places, parts: &[(String, Vec<f64>)]) -> anyhow::Result<Option<Chart>> {
    let places = on.names();
    let total = |place: usize| parts.iter().map(|(_, heights)| heights[place]).sum::<f64>();
    let highest = (0..places.len()).map(total).fold(0.0, f64::max);
    if highest <= 0.0 {
        return Ok(None);
    }
    let svg = draw(|area| {
        let num = places.len();
        let ticks = match on {
            Places::Named(_) => (0..num).map(|place| place as f64 + 0.5).collect(),
            Places::Bins(_) => (0..=num).map(|edge| edge as f64).collect(),
        };
        let label = |x: &f64| match on {
            Places::Named(names) => names.get(*x as usize).cloned().unwrap_or_default(),
            Places::Bins(num) => format!("{:.0}", 100.0 * x / *num as f64),
        };
        let x = Ticked::new(0.0..num as f64, ticks);
        let mut chart = frame(area, axes, x, 0.0..highest * 1.05, &label)?;
        let gap = if matches!(on, Places::Bins(_)) { 0.04 } else { 0.16 };
        let mut below = vec![0.0; num];
        for (index, (_, heights)) in parts.iter().enumerate() {
            let blocks: Vec<_> = (0..places.len())
                .filter(|place| heights[*place] > 0.0)
                .map(|place| {
                    let (from, to) = (below[place], below[place] + heights[place]);
                    below[place] = to;
                    let at = place as f64;
                    Rectangle::new([(at + gap, from), (at + 1.0 - gap, to)], colour(index).filled())
                })
                .collect();
            chart.draw_series(blocks)?;
        }
        Ok(())
    })?;
    let part_of_all = |(name, heights): &(String, Vec<f64>)| format!("{name}: {} in all.", number(heights.iter().sum()));
    Ok(Some(Chart {
        title: title.to_owned(),
        description: format!("{} by {}. {}", axes.y, axes.x, parts.iter().map(part_of_all).collect::<Vec<_>>().join(" ")),
        svg,
        legend: parts.iter().enumerate().map(|(index, (name, _))| Key { svg: block_key(index), name: name.clone() }).collect(),
        header: std::iter::once(axes.x.to_owned()).chain(parts.iter().map(|(name, _)| name.clone())).collect(),
        rows: (0..places.len())
            .map(|place| {
                let figures = parts.iter().map(|(_, heights)| number(heights[place]));
                std::iter::once(places[place].clone()).chain(figures).collect()
            })
            .collect(),
    }))
}

type Drawn = anyhow::Result<()>;

fn draw(paint: impl FnOnce(&DrawingArea<SVGBackend<'_>, Shift>) -> Drawn) -> anyhow::Result<String> {
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        paint(&area)?;
        area.present().map_err(|error| anyhow!("cannot draw: {error}"))?;
    }
    // The page is HTML and says itself what is drawn; what a picture says of its size would hold it to that size.
    let inner = svg.find('>').map_or(svg.as_str(), |end| &svg[end + 1..]);
    let view = format!("viewBox=\"0 0 {} {}\"", SIZE.0, SIZE.1);
    Ok(format!("<svg {view} aria-hidden=\"true\" focusable=\"false\">{inner}"))
}

/// An axis that is labelled at given places and nowhere else.
struct Ticked {
    inner: RangedCoordf64,
    ticks: Vec<f64>,
}

impl Ticked {
    fn new(range: Range<f64>, ticks: Vec<f64>) -> Self {
        Self { inner: range.into(), ticks }
    }
}

impl Ranged for Ticked {
    type FormatOption = NoDefaultFormatting;
    type ValueType = f64;

    fn map(&self, value: &f64, limit: (i32, i32)) -> i32 {
        self.inner.map(value, limit)
    }

    fn key_points<Hint: KeyPointHint>(&self, _: Hint) -> Vec<f64> {
        self.ticks.clone()
    }

    fn range(&self) -> Range<f64> {
        self.inner.range()
    }
}

impl ValueFormatter<f64> for Ticked {}

type Framed<'a, 'b> = ChartContext<'a, SVGBackend<'b>, Cartesian2d<Ticked, RangedCoordf64>>;

/// Axes, grid and labels.
fn frame<'a, 'b>(
    area: &'a DrawingArea<SVGBackend<'b>, Shift>,
    axes: Axes<'_>,
    x: Ticked,
    y: Range<f64>,
    x_label: &dyn Fn(&f64) -> String,
) -> anyhow::Result<Framed<'a, 'b>> {
    let decimals = decimals(y.end - y.start);
    let mut chart = ChartBuilder::on(area)
        .margin(6)
        .margin_right(14)
        .set_label_area_size(LabelAreaPosition::Left, 60)
        .set_label_area_size(LabelAreaPosition::Bottom, 42)
        .build_cartesian_2d(x, y)?;
    let text = || TEXT.into_font().color(&INK);
    chart
        .configure_mesh()
        .disable_x_mesh()
        .light_line_style(TRANSPARENT)
        .bold_line_style(GRID)
        .axis_style(INK)
        .x_labels(13)
        .y_labels(6)
        .x_label_formatter(&x_label)
        .y_label_formatter(&|y| format!("{y:.decimals$}"))
        .label_style(text())
        .axis_desc_style(text())
        .x_desc(axes.x)
        .y_desc(axes.y)
        .draw()?;
    Ok(chart)
}

/// Digits after the point that tell five marks of an axis of this length apart.
fn decimals(length: f64) -> usize {
    if length > 0.0 { (1.0 - (length / 5.0).log10()).floor().clamp(0.0, 6.0) as usize } else { 1 }
}

/// Whole numbers of a range, at most thirteen, evenly spread.
fn steps(x: &Range<f64>) -> impl Iterator<Item = f64> {
    let (from, to) = (x.start.round() as i64, x.end.round() as i64);
    let by = usize::try_from((to - from) / 13 + 1).unwrap_or(1);
    (from..=to).step_by(by).map(|step| step as f64)
}

fn extent(values: impl Iterator<Item = f64>) -> Option<Range<f64>> {
    values.filter(|value| value.is_finite()).fold(None, |range: Option<Range<f64>>, value| {
        let range = range.unwrap_or(value..value);
        Some(range.start.min(value)..range.end.max(value))
    })
}

/// A little room above and below; a single value has some as well.
fn padded(range: Range<f64>) -> Range<f64> {
    let room = match range.end - range.start {
        length if length > 0.0 => 0.06 * length,
        _ => range.end.abs().max(1.0) * 0.1,
    };
    range.start - room..range.end + room
}

fn colour(index: usize) -> RGBColor {
    COLOURS[index % COLOURS.len()]
}

/// The marks of a series, of its colour and of one of four shapes.
fn draw_marks(chart: &mut Framed<'_, '_>, index: usize, places: impl Iterator<Item = (f64, f64)>) -> Drawn {
    let colour = colour(index).filled();
    let square = |at| EmptyElement::at(at) + Rectangle::new([(-4, -4), (4, 4)], colour);
    match index % 4 {
        0 => chart.draw_series(places.map(|at| Circle::new(at, 4, colour)))?,
        1 => chart.draw_series(places.map(|at| TriangleMarker::new(at, 5, colour)))?,
        2 => chart.draw_series(places.map(square))?,
        _ => chart.draw_series(places.map(|at| Cross::new(at, 4, colour.stroke_width(2))))?,
    };
    Ok(())
}

/// The same mark for a legend.
fn mark_key(index: usize) -> String {
    let RGBColor(red, green, blue) = colour(index);
    let ink = format!("#{red:02X}{green:02X}{blue:02X}");
    let shape = match index % 4 {
        0 => format!("<circle cx=\"9\" cy=\"6\" r=\"4\" fill=\"{ink}\"/>"),
        1 => format!("<polygon points=\"9,1 4,10 14,10\" fill=\"{ink}\"/>"),
        2 => format!("<rect x=\"5\" y=\"2\" width=\"8\" height=\"8\" fill=\"{ink}\"/>"),
        _ => format!("<path d=\"M5 2L13 10M13 2L5 10\" stroke-width=\"2\" stroke=\"{ink}\"/>"),
    };
    format!(
        "<svg viewBox=\"0 0 18 12\" aria-hidden=\"true\"><path d=\"M0 6H18\" stroke-width=\"2\" stroke=\"{ink}\"/>{shape}</svg>"
    )
}

/// A piece of a bar for a legend.
fn block_key(index: usize) -> String {
    let RGBColor(red, green, blue) = colour(index);
    format!(
        "<svg viewBox=\"0 0 18 12\" aria-hidden=\"true\"><rect x=\"3\" width=\"12\" height=\"12\" fill=\"#{red:02X}{green:02X}{blue:02X}\"/></svg>"
    )
}

/// Where a series begins and ends, in words.
fn course(series: &Series) -> String {
    match (series.points.first(), series.points.last()) {
        (Some(first), Some(last)) if first.x < last.x => {
            format!("{}: {} at {}, {} at {}.", series.name, number(first.y), number(first.x), number(last.y), number(last.x))
        }
        (Some(only), _) => format!("{}: {} at {}.", series.name, number(only.y), number(only.x)),
        _ => format!("{}: nothing yet.", series.name),
    }
}

/// The figures of all series, a row a place.
fn rows(series: &[Series]) -> Vec<Vec<String>> {
    let mut places: Vec<f64> = series.iter().flat_map(|series| series.points.iter().map(|point| point.x)).collect();
    places.sort_by(f64::total_cmp);
    places.dedup();
    let cell = |series: &Series, x: f64| match series.points.iter().find(|point| point.x == x) {
        None => ABSENT.to_owned(),
        Some(Point { y, interval: Some((low, high)), .. }) => format!("{} [{}, {}]", number(*y), number(*low), number(*high)),
        Some(Point { y, .. }) => number(*y),
    };
    let row = |x: f64| std::iter::once(number(x)).chain(series.iter().map(|series| cell(series, x))).collect();
    places.into_iter().map(row).collect()
}

/// A number as people read it: whole, or with three or four digits that count.
pub(super) fn number(value: f64) -> String {
    match value.abs() {
        _ if value == value.round() && value.abs() < 1e15 => format!("{value:.0}"),
        size if size >= 10.0 => format!("{value:.1}"),
        size if size >= 0.1 => format!("{value:.3}"),
        size if size >= 0.001 => format!("{value:.5}"),
        _ => format!("{value:.2e}"),
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops where it cannot go on")]
mod tests {
    use super::*;

    fn series(name: &str, points: &[(f64, f64)]) -> Series {
        let point = |&(x, y): &(f64, f64)| Point { x, y, interval: Some((y - 1.0, y + 1.0)) };
        Series { name: name.to_owned(), points: points.iter().map(point).collect() }
    }

    const AXES: Axes<'_> = Axes { x: "iteration", y: "%" };

    #[test]
    fn a_chart_says_in_words_and_figures_what_it_draws() {
        let both = [series("a", &[(0.0, 31.25), (1.0, 75.0)]), series("b <&>", &[(1.0, 60.0)])];
        let chart = lines("Accuracy", AXES, &both).unwrap().unwrap();
        assert_eq!(chart.description, "% by iteration. a: 31.2 at 0, 75 at 1. b <&>: 60 at 1.");
        assert_eq!(chart.header, ["iteration", "a", "b <&>"]);
        assert_eq!(chart.rows, [["0", "31.2 [30.2, 32.2]", "-"], ["1", "75 [74, 76]", "60 [59, 61]"]]);
        assert!(chart.svg.starts_with("<svg viewBox=") && chart.svg.contains("#0072B2") && chart.svg.contains("#B84400"));
        // Both places are told on the axis, and nothing between them.
        for (label, is_there) in [("\n0\n", true), ("\n1\n", true), ("\n0.5\n", false)] {
            assert_eq!(chart.svg.contains(label), is_there, "{label:?} in {}", chart.svg);
        }
    }

    #[test]
    fn a_single_figure_and_no_figure_are_drawn_as_well() {
        assert!(lines("one", AXES, &[series("a", &[(0.0, 0.0)])]).unwrap().is_some());
        assert!(lines("none", AXES, &[series("a", &[])]).unwrap().is_none());
        assert!(lines("not a number", AXES, &[series("a", &[(0.0, f64::NAN)])]).unwrap().is_none());
        assert!(bars("none", AXES, &Places::Bins(10), &[("kept".to_owned(), vec![0.0; 10])]).unwrap().is_none());
    }

    #[test]
    fn stacked_bars_reach_as_high_as_their_parts_together() {
        let parts = [("kept".to_owned(), vec![1.0, 0.0]), ("dropped".to_owned(), vec![3.0, 2.0])];
        let chart = bars("Votes", AXES, &Places::Named(vec!["1".to_owned(), "2".to_owned()]), &parts).unwrap().unwrap();
        assert_eq!(chart.rows, [["1", "1", "3"], ["2", "0", "2"]]);
        // A part of height 0 is no bar.
        assert_eq!(chart.svg.matches("<rect").count(), 3);
        assert_eq!(Places::Bins(4).names(), ["0 to 25", "25 to 50", "50 to 75", "75 to 100"]);
    }
}
