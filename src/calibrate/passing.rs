//! Attention products that stay float as a whole (out of scope, or asked for): nothing is decided at them, so that the walk goes through, input by
//! input, and what is between the sites on both sides is neither kept for all inputs nor written to files.

use vitq_passes::plan::SitePlan;

use super::linear::left_float;
use super::{CalibrateError, Calibration, SiteReport, candidates, form};
use crate::walk::{SiteOutput, Walk};

impl Calibration<'_> {
    /// Gives the site that the walk stands at its result, and goes on to the next one that is not passed.
    pub(super) fn complete(
        &self,
        walk: &mut Walk<'_>,
        output: impl Fn(&Walk<'_>, usize) -> Result<SiteOutput, CalibrateError> + Sync,
    ) -> Result<(), CalibrateError> {
        walk.complete_through(output, |walk, index| {
            let site = &self.structure.sites[index];
            if site.second.is_none() || self.settings.float_reason(site).is_none() {
                return Ok(None);
            }
            if self.works[index].get().is_none() {
                let work = candidates::work(self, walk, index)?;
                self.works[index].get_or_init(|| work);
            }
            self.float_output(walk, index, 0).map(Some)
        })
    }

    /// What becomes of an attention product that stays float without being looked at: the walk goes through it.
    pub(super) fn passed(&self, index: usize) -> (SitePlan, SiteReport) {
        let site = &self.structure.sites[index];
        let decision = left_float(self.settings.float_reason(site).unwrap_or_default());
        let work = self.works[index].get().copied().unwrap_or_default();
        let report = SiteReport {
            form: form(&decision),
            ..SiteReport::of(site, work)
        };
        let site = site.name.clone();
        (SitePlan { site, decision }, report)
    }
}
