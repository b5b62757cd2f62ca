//! The gain that the target's cost model expects of each quantised site.

use vitq_passes::plan::{Activation, Decision, Plan};
use vitq_passes::target::{Costs, Target};

use crate::budget::speed::time;
use crate::calibrate::SiteReport;

/// Notes at each quantised site what it gains; returns float time / quantised time of the whole model. `None` where the
/// target has no cost model, or the plan has codes that the model knows no price of.
pub fn expect(sites: &mut [SiteReport], plan: &Plan, target: &Target) -> Option<f64> {
    let costs = target.costs.filter(|_| !has_codebooks(plan))?;
    let float: u64 = sites.iter().map(|it| time(&costs, it.work, false)).sum();
    let mut saved = 0;
    for site in sites {
        let decision = plan.site(&site.site).map(|it| &it.decision);
        if !decision.is_some_and(multiplies_codes) {
            continue;
        }
        let gain = gain(&costs, site);
        saved += gain;
        site.expected_gain = Some(100.0 * gain as f64 / float.max(1) as f64);
    }
    (float > saved).then(|| float as f64 / (float - saved) as f64)
}

fn gain(costs: &Costs, site: &SiteReport) -> u64 {
    let branch = site.low_rank.map_or(0, |it| it.macs * costs.float);
    let quantised = time(costs, site.work, true) + branch;
    time(costs, site.work, false).saturating_sub(quantised)
}

/// Whether a site's product is one of codes.
fn multiplies_codes(decision: &Decision) -> bool {
    match decision {
        Decision::Float { .. } => false,
        Decision::Linear(linear) => linear.activation != Activation::Float,
        Decision::Product { .. } => true,
    }
}

fn has_codebooks(plan: &Plan) -> bool {
    let codebook = |it: &Activation| matches!(it, Activation::Codebook { .. });
    plan.sites.iter().any(|site| match &site.decision {
        Decision::Float { .. } => false,
        Decision::Linear(linear) => codebook(&linear.activation),
        Decision::Product { left, right } => codebook(left) || codebook(right),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::calibrate::candidates::Work;
    use vitq_passes::plan::SitePlan;
    use vitq_passes::target::{ONNX_RUNTIME, TRACT};

    fn site(name: &str, macs: u64) -> SiteReport {
        SiteReport {
            site: name.into(),
            work: Work { macs, elements: 10 },
            ..SiteReport::default()
        }
    }

    fn plan(activation: Activation) -> Plan {
        let decision = Decision::Product {
            left: activation.clone(),
            right: activation,
        };
        let site = "quantised".into();
        let sites = vec![SitePlan { site, decision }];
        Plan {
            sites,
            ..Plan::default()
        }
    }

    #[test]
    fn what_is_quantised_gains() {
        let uniform = crate::quant::around_zero(1.0, 8);
        let codebook = Activation::Codebook {
            scale: 1.0,
            segments: vec![],
        };
        let mut sites = [site("quantised", 1000), site("float", 1000)];
        assert_eq!(expect(&mut sites, &plan(codebook), &ONNX_RUNTIME), None);
        assert_eq!(expect(&mut sites, &plan(uniform.clone()), &TRACT), None);
        assert_eq!(sites[0].expected_gain, None);
        // 2·(1000·36 + 10·22·36) of float, 1000·26 less.
        let speed = expect(&mut sites, &plan(uniform), &ONNX_RUNTIME);
        let float = 2.0 * (36_000.0 + 7_920.0);
        assert_eq!(speed, Some(float / (float - 26_000.0)));
        assert_eq!(sites[0].expected_gain, Some(100.0 * 26_000.0 / float));
        assert_eq!(sites[1].expected_gain, None);
    }
}
