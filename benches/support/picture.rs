//! Pictures of results as SVG, written by hand: axes, lines, labels. No plotting library is worth its build time here.

use std::fmt::Write as _;

/// A line in a picture.
#[derive(Debug, Clone)]
pub(crate) struct Line {
    /// Its name in the legend.
    pub(crate) name: String,
    /// `(x, y)`, ascending in x.
    pub(crate) points: Vec<(f64, f64)>,
}

/// A tick on an axis: where, and its label.
pub(crate) type Tick = (f64, String);

/// What the axes look like. Values are in the units of the points.
#[derive(Debug, Clone)]
pub(crate) struct Axes {
    /// Above the picture.
    pub(crate) title: String,
    /// Below the x axis.
    pub(crate) x: String,
    /// Beside the y axis.
    pub(crate) y: String,
    /// Logarithmic y axis.
    pub(crate) log_y: bool,
    /// Ticks of the x axis, which is logarithmic.
    pub(crate) x_ticks: Vec<Tick>,
    /// Ticks of the y axis.
    pub(crate) y_ticks: Vec<Tick>,
}

const WIDTH: f64 = 760.0;
const HEIGHT: f64 = 420.0;
const LEFT: f64 = 76.0;
const RIGHT: f64 = 20.0;
const TOP: f64 = 46.0;
const BOTTOM: f64 = 58.0;
const COLOURS: [&str; 6] = ["#7a8794", "#0b62c4", "#c4560b", "#1f8a4c", "#8a3ffc", "#b3261e"];

/// The picture.
pub(crate) fn draw(axes: &Axes, lines: &[Line]) -> String {
    let ends = |ticks: &[Tick]| (ticks.first().map_or(0.0, |tick| tick.0), ticks.last().map_or(1.0, |tick| tick.0));
    let (x_ends, y_ends) = (ends(&axes.x_ticks), ends(&axes.y_ticks));
    let place = |value: f64, ends: (f64, f64), log: bool| {
        if log {
            (value.max(ends.0).min(ends.1).ln() - ends.0.ln()) / (ends.1.ln() - ends.0.ln())
        } else {
            (value.max(ends.0).min(ends.1) - ends.0) / (ends.1 - ends.0)
        }
    };
    let x = |value: f64| LEFT + place(value, x_ends, true) * (WIDTH - LEFT - RIGHT);
    let y = |value: f64| HEIGHT - BOTTOM - place(value, y_ends, axes.log_y) * (HEIGHT - TOP - BOTTOM);

    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {WIDTH} {HEIGHT}\" font-family=\"sans-serif\" \
         font-size=\"12\" fill=\"#222\">\n<rect width=\"{WIDTH}\" height=\"{HEIGHT}\" fill=\"#fff\"/>\n"
    );
    let mut put = |text: std::fmt::Arguments<'_>| {
        // Writing to a string can't fail.
        let _ = svg.write_fmt(text);
    };
    put(format_args!("<text x=\"{LEFT}\" y=\"22\" font-size=\"15\">{}</text>\n", escape(&axes.title)));
    for (value, label) in &axes.y_ticks {
        let at = y(*value);
        put(format_args!("<path d=\"M{LEFT} {at:.1}H{:.1}\" stroke=\"#e3e6e9\"/>", WIDTH - RIGHT));
        put(format_args!(
            "<text x=\"{}\" y=\"{:.1}\" text-anchor=\"end\">{}</text>\n",
            LEFT - 6.0,
            at + 4.0,
            escape(label)
        ));
    }
    for (value, label) in &axes.x_ticks {
        let (at, below) = (x(*value), HEIGHT - BOTTOM + 18.0);
        put(format_args!("<path d=\"M{at:.1} {TOP}V{:.1}\" stroke=\"#e3e6e9\"/>", HEIGHT - BOTTOM));
        put(format_args!("<text x=\"{at:.1}\" y=\"{below}\" text-anchor=\"middle\">{}</text>\n", escape(label)));
    }
    put(format_args!(
        "<text x=\"{}\" y=\"{}\" text-anchor=\"middle\">{}</text>\n",
        (LEFT + WIDTH - RIGHT) / 2.0,
        HEIGHT - 14.0,
        escape(&axes.x)
    ));
    put(format_args!(
        "<text transform=\"translate(16 {}) rotate(-90)\" text-anchor=\"middle\">{}</text>\n",
        (TOP + HEIGHT - BOTTOM) / 2.0,
        escape(&axes.y)
    ));
    let mut legend_at = LEFT + 10.0;
    for (line, colour) in lines.iter().zip(COLOURS.iter().cycle()) {
        let path: Vec<String> =
            line.points.iter().map(|point| format!("{:.1} {:.1}", x(point.0), y(point.1))).collect();
        put(format_args!("<path d=\"M{}\" fill=\"none\" stroke=\"{colour}\" stroke-width=\"2\"/>\n", path.join("L")));
        put(format_args!("<path d=\"M{legend_at:.0} 36h18\" stroke=\"{colour}\" stroke-width=\"3\"/>"));
        put(format_args!("<text x=\"{:.0}\" y=\"40\">{}</text>\n", legend_at + 23.0, escape(&line.name)));
        legend_at += 45.0 + 6.6 * line.name.chars().count() as f64;
    }
    svg.push_str("</svg>\n");
    svg
}

fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
