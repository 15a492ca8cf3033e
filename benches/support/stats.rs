//! Medians of paired runs.

/// The middle value, or the mean of the two in the middle; 0 of none.
pub(crate) fn median(values: &[f64]) -> f64 {
    quantile(values, 0.5)
}

/// A quantile, linearly between the values beside it; 0 of none.
pub(crate) fn quantile(values: &[f64], at: f64) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    if sorted.is_empty() {
        return 0.0;
    }
    #[allow(clippy::cast_precision_loss)]
    let place = at * (sorted.len() - 1) as f64;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)]
    let (below, above) = (place.floor() as usize, place.ceil() as usize);
    sorted[below] + (sorted[above] - sorted[below]) * (place - place.floor())
}

/// Two things measured by turns, so that what the machine does meanwhile hits both.
#[derive(Debug, Clone, Default)]
pub(crate) struct Pairs {
    /// One `(ours, theirs)` a pair.
    pub(crate) values: Vec<(f64, f64)>,
}

impl Pairs {
    /// Measures `count` pairs, each in the other order than the one before.
    pub(crate) fn measure(
        count: usize,
        mut ours: impl FnMut() -> super::Result<f64>,
        mut theirs: impl FnMut() -> super::Result<f64>,
    ) -> super::Result<Self> {
        let mut pairs = Self::default();
        for turn in 0..count {
            let pair = if turn % 2 == 0 {
                let theirs = theirs()?;
                (ours()?, theirs)
            } else {
                let ours = ours()?;
                (ours, theirs()?)
            };
            eprintln!("  pair {}: {:.0} ÷ {:.0} = {:.3}", turn + 1, pair.0, pair.1, pair.0 / pair.1);
            pairs.values.push(pair);
        }
        Ok(pairs)
    }

    /// `ours ÷ theirs` of each pair.
    pub(crate) fn ratios(&self) -> Vec<f64> {
        self.values.iter().map(|(ours, theirs)| ours / theirs).collect()
    }

    /// The median of the pairs' ratios.
    pub(crate) fn ratio(&self) -> f64 {
        median(&self.ratios())
    }

    /// Median of what is measured.
    pub(crate) fn ours(&self) -> f64 {
        median(&self.values.iter().map(|pair| pair.0).collect::<Vec<_>>())
    }

    /// Median of what it is compared with.
    pub(crate) fn theirs(&self) -> f64 {
        median(&self.values.iter().map(|pair| pair.1).collect::<Vec<_>>())
    }
}
