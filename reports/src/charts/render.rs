//! A chart's bytes: SVG and PNG from one drawing.

use super::chart::{Chart, Hover};
use super::draw::{self, Frame};
use super::theme::{self, INK_PNG, INK_SVG};
use crate::error::ReportError;
use plotters::prelude::*;

impl Chart {
    /// SVG text: ink is `currentColor`, no background, so that it follows the page it is put into.
    pub fn svg(&self) -> Result<(String, Option<Hover>), ReportError> {
        theme::register_font();
        let mut text = String::new();
        let hover;
        {
            let root = SVGBackend::with_string(&mut text, self.size).into_drawing_area();
            hover = draw::chart(
                &root,
                self,
                Frame {
                    ink: INK_SVG,
                    scale: 1.0,
                },
            )
            .and_then(|h| root.present().map(|()| h))
            .map_err(|e| self.fail(e))?;
        }
        Ok((theme::follow_page(&text), hover))
    }

    /// SVG as a file of its own: light or dark as the reader's system is.
    pub fn svg_file(&self) -> Result<String, ReportError> {
        Ok(theme::stand_alone(&self.svg()?.0, &self.caption))
    }

    /// PNG, light, twice the size of the SVG's pixels horizontally and vertically where that is useful.
    pub fn png(&self) -> Result<Vec<u8>, ReportError> {
        theme::register_font();
        let scale = 1.6_f64;
        let (w, h) = (
            (f64::from(self.size.0) * scale) as u32,
            (f64::from(self.size.1) * scale) as u32,
        );
        let mut pixels = vec![255_u8; (w * h * 3) as usize];
        {
            let root = BitMapBackend::with_buffer(&mut pixels, (w, h)).into_drawing_area();
            root.fill(&WHITE).map_err(|e| self.fail(e))?;
            draw::chart(
                &root,
                self,
                Frame {
                    ink: INK_PNG,
                    scale,
                },
            )
            .and_then(|h| root.present().map(|()| h))
            .map_err(|e| self.fail(e))?;
        }
        theme::encode_png(&pixels, w, h).map_err(|e| self.fail(e))
    }

    fn fail(&self, e: impl std::fmt::Display) -> ReportError {
        ReportError::Chart {
            name: self.stem.clone(),
            message: e.to_string(),
        }
    }
}
