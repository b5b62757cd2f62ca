"""What ../shared/tools/evaluate.py feeds to the model for every tenth test image: OUT/N.f32 and OUT/cases.json."""
import importlib.util, json, pathlib, sys

OUT = pathlib.Path(sys.argv[1])
SHARED = pathlib.Path(__file__).resolve().parents[3] / "shared"
spec = importlib.util.spec_from_file_location("evaluate", SHARED / "tools/evaluate.py")
evaluate = importlib.util.module_from_spec(spec)
spec.loader.exec_module(evaluate)

contract = dict(resize=dict(short_side=248), crop=dict(height=224, width=224), interpolation="bicubic", mean=[0.5] * 3, std=[0.5] * 3)
cases = []
for i, file in enumerate(sorted((SHARED / "data/imagenet_sample/test").glob("*/*.jpg"))[::10]):
    x = evaluate.load(file, tiny=False)
    x.astype("<f4").tofile(OUT / f"{i}.f32")
    cases.append(dict(file=str(file), expected=f"{i}.f32", dims=[1, *x.shape], contract=contract, levels=4.0, mean_levels=0.04))
(OUT / "cases.json").write_text(json.dumps(cases))
