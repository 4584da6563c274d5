//! Font, colours, markers, and how a drawn SVG follows light and dark pages.

use plotters::style::{FontStyle, RGBColor, register_font as plotters_register};
use std::sync::Once;

/// DejaVu Sans, Latin and signs only (see assets/README.md).
pub(crate) const FONT: &[u8] = include_bytes!("../../assets/DejaVuSans-subset.ttf");

/// Ink in SVG: a colour that nothing else has, replaced by `currentColor` afterwards.
pub(super) const INK_SVG: RGBColor = RGBColor(1, 2, 3);
/// Ink in PNG.
pub(super) const INK_PNG: RGBColor = RGBColor(27, 31, 36);

/// Registers the embedded font; plotters finds no other.
pub(super) fn register_font() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // The bytes are a constant of this program: a test draws with them.
        let _ = plotters_register("sans-serif", FontStyle::Normal, FONT);
    });
}

/// Colour, marker and dash of a subject. Shapes differ too, for readers who do not tell the colours apart.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Look {
    pub colour: RGBColor,
    pub marker: Marker,
    /// Dash and gap in pixels; `None` for a solid line.
    pub dash: Option<(i32, i32)>,
}

/// Shape of a point.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Marker {
    Circle,
    Square,
    Triangle,
    Diamond,
    Cross,
    None,
}

/// Every colour has at least 3:1 against white and against the dark page.
const LOOKS: [Look; 8] = [
    Look {
        colour: RGBColor(122, 127, 135),
        marker: Marker::Square,
        dash: Some((14, 5)),
    },
    Look {
        colour: RGBColor(43, 123, 214),
        marker: Marker::Circle,
        dash: None,
    },
    Look {
        colour: RGBColor(217, 111, 14),
        marker: Marker::Triangle,
        dash: None,
    },
    Look {
        colour: RGBColor(14, 148, 128),
        marker: Marker::Diamond,
        dash: None,
    },
    Look {
        colour: RGBColor(154, 95, 208),
        marker: Marker::Cross,
        dash: None,
    },
    Look {
        colour: RGBColor(194, 82, 139),
        marker: Marker::Circle,
        dash: Some((10, 5)),
    },
    Look {
        colour: RGBColor(138, 121, 20),
        marker: Marker::Triangle,
        dash: Some((10, 5)),
    },
    Look {
        colour: RGBColor(90, 127, 74),
        marker: Marker::Diamond,
        dash: Some((10, 5)),
    },
];

impl Look {
    /// The look of the n-th subject.
    pub fn of(n: usize) -> Self {
        LOOKS[n % LOOKS.len()]
    }

    /// Live bytes: the same for all subjects.
    pub fn live() -> Self {
        Self {
            colour: RGBColor(96, 104, 116),
            marker: Marker::None,
            dash: Some((5, 5)),
        }
    }

    /// `#rrggbb`.
    pub fn css(&self) -> String {
        let RGBColor(r, g, b) = self.colour;
        format!("#{r:02x}{g:02x}{b:02x}")
    }
}

/// Replaces the ink by the page's text colour and drops what is only for files.
pub(super) fn follow_page(svg: &str) -> String {
    svg.replace("#010203", "currentColor")
        .replace(" xmlns=\"http://www.w3.org/2000/svg\"", "")
        .replace('\n', "")
}

/// Makes an embeddable SVG a file: name space, description, light and dark page.
pub(super) fn stand_alone(svg: &str, caption: &str) -> String {
    let Some(end) = svg.find('>') else {
        return svg.to_owned();
    };
    let caption = caption
        .replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;");
    format!(
        "{} xmlns=\"http://www.w3.org/2000/svg\" role=\"img\"><title>{caption}</title><style>\
         svg{{color:#1b1f24;background:#fff}}@media (prefers-color-scheme:dark)\
         {{svg{{color:#e6e9ee;background:#14171c}}}}</style>{}\n",
        &svg[..end],
        &svg[end + 1..]
    )
}

/// RGB pixels as PNG; the same pixels give the same bytes.
pub(super) fn encode_png(
    pixels: &[u8],
    width: u32,
    height: u32,
) -> Result<Vec<u8>, png::EncodingError> {
    let mut bytes = Vec::new();
    let mut encoder = png::Encoder::new(&mut bytes, width, height);
    encoder.set_color(png::ColorType::Rgb);
    encoder.set_depth(png::BitDepth::Eight);
    encoder.set_compression(png::Compression::Best);
    encoder.set_adaptive_filter(png::AdaptiveFilterType::Adaptive);
    encoder.write_header()?.write_image_data(pixels)?;
    Ok(bytes)
}
