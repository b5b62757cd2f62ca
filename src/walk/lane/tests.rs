use super::*;

fn outlet(node: usize) -> OutletId {
    OutletId::new(node, 0)
}

#[test]
fn what_is_read_back_from_the_disk_is_what_was_there() {
    let folder = tempfile::tempdir().unwrap();
    let values: Vec<f32> = (0..2048).map(|i| (i as f32 - 700.0) * 0.37).collect();
    let (large, small) = (
        Tensor::from_shape(&[2, 1024], &values).unwrap(),
        Tensor::from_shape(&[3], &values[..3]).unwrap(),
    );
    let mut lane = Lane::default();
    for (node, tensor) in [(1, &large), (2, &small)] {
        lane.float
            .insert(outlet(node), Held::Memory(Arc::new(tensor.clone())));
    }
    lane.quantised
        .insert(outlet(1), Held::Memory(Arc::new(large.clone())));
    lane.spill(folder.path(), 5).unwrap();
    let files = || std::fs::read_dir(folder.path()).unwrap().count();
    assert_eq!(files(), 2, "the large tensor of each world");
    for world in [World::Float, World::Quantised] {
        assert_eq!(*lane.value(outlet(1), world).unwrap().unwrap(), large);
        assert_eq!(*lane.value(outlet(2), world).unwrap().unwrap(), small);
    }
    assert!(lane.value(outlet(3), World::Float).unwrap().is_none());
    let branch = lane.float_only();
    drop(lane);
    assert_eq!(files(), 1, "the branch still holds the float value");
    assert_eq!(
        *branch.value(outlet(1), World::Quantised).unwrap().unwrap(),
        large
    );
    drop(branch);
    assert_eq!(files(), 0);
}

#[test]
fn a_file_that_is_gone_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let mut lane = Lane::default();
    let tensor = Tensor::from_shape(&[2048], &[1.0f32; 2048]).unwrap();
    lane.float
        .insert(outlet(0), Held::Memory(Arc::new(tensor.clone())));
    lane.spill(folder.path(), 0).unwrap();
    folder.close().unwrap();
    let message = lane.value(outlet(0), World::Float).unwrap_err().to_string();
    assert!(
        message.contains("0-float-0-0") && message.contains("TMPDIR"),
        "{message}"
    );
    let mut lane = Lane::default();
    lane.float.insert(outlet(0), Held::Memory(Arc::new(tensor)));
    let nowhere = Path::new("no such folder");
    let message = lane.spill(nowhere, 0).unwrap_err().to_string();
    assert!(message.contains("no such folder"), "{message}");
}
