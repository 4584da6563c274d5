//! Classes of sizes: neighbouring bins whose blocks the model does not tell apart.

use super::survey::{BINS, Bin, Survey, bin_of, end_of};

/// What a merge may cost: beyond, classes stay apart even if there are few.
const NEAR: f64 = 0.002;

/// Classes of blocks that grow: those that come and go, and those that have a part in the peak.
const GROWING: usize = 3;

/// Which class each block belongs to.
pub(super) struct Classes {
    /// Number of the class by bin.
    fixed: [u8; BINS],
    /// The same for blocks that grow, by the bin of their largest size.
    growing: [u8; BINS],
    /// What each is called.
    pub names: Vec<String>,
    /// Classes from this one on are those of blocks that grow.
    pub first_growing: usize,
}

impl Classes {
    /// At most `most` classes of blocks that keep their size, and [`GROWING`] of those that grow. `stray` says what blocks of another size at the
    /// peak weigh.
    pub fn of(survey: &Survey, most: usize, stray: f64) -> Self {
        let mut classes = Self {
            fixed: [0; BINS],
            growing: [0; BINS],
            names: Vec::new(),
            first_growing: 0,
        };
        let ends = merge(&survey.bins, survey.peak_bytes, most, stray);
        classes.fixed = classes.add(&ends, "");
        classes.first_growing = classes.names.len();
        // A few blocks that grow are resized like the others.
        let growing: u64 = survey.grown_bins.iter().map(|bin| bin.calls).sum();
        let steps = 8 * growing;
        if growing > 0 && (steps as f64 >= 0.005 * survey.calls as f64 || large(survey)) {
            let ends = merge(&survey.grown_bins, survey.peak_bytes, GROWING, stray);
            classes.growing = classes.add(&ends, "growing-");
        }
        classes
    }

    fn add(&mut self, ends: &[usize], prefix: &str) -> [u8; BINS] {
        let mut of = [0; BINS];
        let mut begin = 0;
        for &end in ends {
            of[begin..=end].fill(self.names.len() as u8);
            self.names
                .push(format!("{prefix}to-{}", short(end_of(end) - 1)));
            begin = end + 1;
        }
        let last = self.names.len().saturating_sub(1) as u8;
        of[begin..].fill(last);
        of
    }

    pub fn len(&self) -> usize {
        self.names.len()
    }

    /// The class of a block; `grown` is the bin of its largest size, if it grows.
    #[inline]
    pub fn find(&self, size: u64, grown: Option<u8>) -> usize {
        match grown {
            Some(bin) if self.first_growing < self.names.len() => {
                usize::from(self.growing[bin as usize])
            }
            _ => usize::from(self.fixed[bin_of(size)]),
        }
    }
}

/// Whether blocks that grow have a part in the peak.
fn large(survey: &Survey) -> bool {
    (survey.grown_bins.iter().enumerate())
        .any(|(bin, about)| about.calls > 0 && end_of(bin) as f64 > 0.02 * survey.peak_bytes as f64)
}

/// The last bin of each class. Neighbours are merged as Ward does (1963): those first whose weights and distance, in powers of
/// two, add least to the spread within classes. What is alive of a class is told by its size in all: where short-lived blocks are longer
/// than those that stay, merging them would give the peak blocks of another size, which weighs `stray`.
fn merge(bins: &[Bin], peak_bytes: u64, most: usize, stray: f64) -> Vec<usize> {
    struct Cluster {
        end: usize,
        weight: f64,
        mean: f64,
        /// Bytes asked for, and share of the peak.
        bytes: f64,
        at_peak: f64,
    }
    let astray = |a: &Cluster, b: &Cluster| {
        let told = (a.at_peak + b.at_peak) * a.bytes / (a.bytes + b.bytes).max(1.0);
        (told - a.at_peak).abs()
    };
    let calls: u64 = bins.iter().map(|bin| bin.calls).sum();
    let mut clusters: Vec<Cluster> = (bins.iter().enumerate())
        .filter(|(_, bin)| bin.calls > 0)
        .map(|(index, bin)| Cluster {
            end: index,
            weight: bin.calls as f64 / calls as f64
                + 2.0 * bin.at_peak as f64 / peak_bytes.max(1) as f64,
            mean: index as f64 / 2.0,
            bytes: bin.bytes as f64,
            at_peak: bin.at_peak as f64 / peak_bytes.max(1) as f64,
        })
        .collect();
    loop {
        let cost = |pair: &[Cluster]| {
            let (a, b) = (&pair[0], &pair[1]);
            let both = a.weight * b.weight / (a.weight + b.weight);
            (both + stray * astray(a, b)) * (a.mean - b.mean).powi(2)
        };
        let costs = clusters.windows(2).map(cost).enumerate();
        let Some((first, least)) = costs.min_by(|a, b| a.1.total_cmp(&b.1)) else {
            break;
        };
        if clusters.len() <= most && least > NEAR {
            break;
        }
        let a = clusters.remove(first);
        let b = &mut clusters[first];
        b.mean = (a.mean * a.weight + b.mean * b.weight) / (a.weight + b.weight);
        b.weight += a.weight;
        b.bytes += a.bytes;
        b.at_peak += a.at_peak;
    }
    clusters.iter().map(|cluster| cluster.end).collect()
}

/// A size in few letters.
fn short(bytes: u64) -> String {
    match bytes + 1 {
        size if size >= 1 << 20 && size.is_multiple_of(1 << 20) => format!("{}m", size >> 20),
        size if size >= 1 << 10 && size.is_multiple_of(1 << 10) => format!("{}k", size >> 10),
        _ => bytes.to_string(),
    }
}
