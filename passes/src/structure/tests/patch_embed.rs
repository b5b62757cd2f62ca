use super::super::{Role, SiteKind, recognise};
use super::{parse, refusals, values};

fn on_images(nodes: &str) -> super::Structure {
    let constants = format!(
        "float[5,3,2,2] k = {}, float[5] b = {}, float[5,1,2,2] depthwise = {},
         float[1,3,1,1] mean = {{0.5, 0.4, 0.3}}, float[1,3,1,1] std = {{0.2, 0.2, 0.2}}",
        values(60),
        values(5),
        values(20)
    );
    recognise(&parse(
        "(float[n,3,8,8] x) => (float[n,5,h,v] y)",
        &constants,
        nodes,
    ))
}

#[test]
fn a_convolution_over_separate_patches_of_the_input() {
    for nodes in [
        "[pe] y = Conv<kernel_shape=[2,2], strides=[2,2]>(x, k, b)",
        "[pe] y = Conv<strides=[2,2], pads=[0,0,0,0], group=1, dilations=[1,1]>(x, k, b)",
        "s = Sub(x, mean)  d = Div(s, std)  [pe] y = Conv<strides=[2,2]>(d, k, b)",
    ] {
        let found = on_images(nodes);
        assert_eq!(found.sites.len(), 1, "{nodes}");
        let site = &found.sites[0];
        assert_eq!(
            (site.kind, site.role),
            (SiteKind::PatchEmbed, Role::PatchEmbed)
        );
        assert_eq!(
            (site.path.as_str(), found.patch),
            ("patch_embed", Some([2, 2]))
        );
        let parameters = site.parameters.as_ref().expect("parameters");
        assert_eq!((parameters.inputs, parameters.outputs), (12, 5));
        assert!(parameters.bias.is_some());
    }
}

#[test]
fn other_convolutions_are_declined_by_what_differs() {
    let table = [
        (
            "[c] y = Conv<strides=[1,1]>(x, k, b)",
            "c: kernel [2, 2] and stride [1, 1] differ",
        ),
        (
            "[c] y = Conv(x, k, b)",
            "c: kernel [2, 2] and stride [1, 1] differ",
        ),
        (
            "[c] y = Conv<strides=[2,2], pads=[1,1,1,1]>(x, k, b)",
            "c: the convolution pads",
        ),
        (
            "[c] y = Conv<strides=[2,2], auto_pad=\"SAME_UPPER\">(x, k, b)",
            "c: the convolution pads",
        ),
        (
            "[c] y = Conv<strides=[2,2], dilations=[2,2]>(x, k, b)",
            "c: the convolution is dilated",
        ),
        (
            "[c] y = Conv<strides=[2,2], group=3>(x, depthwise, b)",
            "c: the convolution is grouped",
        ),
        (
            "r = Relu(x)  [c] y = Conv<strides=[2,2]>(r, k, b)",
            "c: a convolution inside the network",
        ),
        (
            "r = Relu(k)  [c] y = Conv<strides=[2,2]>(x, r, b)",
            "c: the kernel is not constant",
        ),
    ];
    for (nodes, reason) in table {
        let found = on_images(nodes);
        assert!(found.sites.is_empty() && found.patch.is_none(), "{nodes}");
        let refusals = refusals(&found);
        assert!(
            refusals.len() == 1 && refusals[0].starts_with(reason),
            "{nodes}: {refusals:?}"
        );
    }
}
