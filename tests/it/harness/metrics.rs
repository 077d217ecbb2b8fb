//! The text of `/metrics`, as far as tests ask it.

/// One reading of all metrics.
#[derive(Clone, Debug)]
pub(crate) struct Metrics(String);

impl Metrics {
    pub(crate) fn new(text: String) -> Self {
        Self(text)
    }

    /// The sum of all series of this name that have these labels; `None` when there is no such series.
    pub(crate) fn get(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        let mut sum = None;
        for (series, value) in self.series() {
            let (series_name, series_labels) = series.split_once('{').unwrap_or((series, ""));
            let has = |(name, value): &(&str, &str)| {
                let label = format!("{name}=\"{value}\"");
                series_labels.starts_with(&label) || series_labels.contains(&format!(",{label}"))
            };
            if series_name == name && labels.iter().all(has) {
                *sum.get_or_insert(0.0) += value;
            }
        }
        sum
    }

    /// As [`get`](Self::get), where a series that is not there is a failed test.
    #[track_caller]
    pub(crate) fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.get(name, labels).unwrap_or_else(|| panic!("no {name} with {labels:?} in\n{}", self.0))
    }

    /// Every series: its name with labels, and its value.
    pub(crate) fn series(&self) -> impl Iterator<Item = (&str, f64)> {
        self.0.lines().filter(|line| !line.starts_with('#')).filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            Some((series, value.parse().ok()?))
        })
    }

    pub(crate) fn text(&self) -> &str {
        &self.0
    }
}
