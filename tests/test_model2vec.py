"""Learned distances, against plain ones, finite differences, planted biases and poisoned errors."""

import json
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from t2v_hub.distance import asymmetric_distance, distance
from t2v_hub.errors import EmbeddingFileError, EmbeddingMismatchError, SettingsError
from t2v_hub.model2vec import Model2Vec
from t2v_hub.model2vec.files import read, write
from t2v_hub.model2vec.geometry import distances_and_slopes, distances_to
from t2v_hub.model2vec.inputs import learning_from
from t2v_hub.model2vec.precisions import precisions
from tests.factories import make_embedding, make_space

SIZES = [16, 24, 20]
SPACE = make_space(SIZES, beta=1e-8)


def precision(embedding):
    """What a bias is planted on, from the formulas: a mean of 1e-4, then ``F/(2 beta) + 1/lambda^2``."""
    fisher = embedding.fisher.astype(np.float64)
    return 1e-4 * fisher / fisher.mean() / (2 * SPACE.beta) + 1 / np.float64(np.float32(1e-3))


class Pool:
    """Tasks and candidates whose errors come from planted model vectors and offsets.

    Embeddings are of all sizes, which must not count.
    """

    def __init__(self, n_tasks=24, n_candidates=6, *, bias=0.0, offset=0.0, noise=0.0, seed=0):
        rng = np.random.default_rng(seed)
        sizes = np.random.default_rng(seed + 1)
        factors = rng.normal(size=(4, sum(SIZES)))

        def embedding(name):
            values = np.exp(-7 + 0.8 * rng.normal(size=4) @ factors + 0.3 * rng.normal(size=sum(SIZES)))
            values *= sizes.uniform(0.01, 100)
            return make_embedding(values, space=SPACE, task=name, prior=np.full(3, 1e-3))

        self.tasks = [embedding(f"task{t}") for t in range(n_tasks)]
        self.candidates = [f"model{i}" for i in range(n_candidates)]
        self.sources = {name: embedding(f"source of {name}") for name in self.candidates}
        self.bias = bias * rng.normal(size=(n_candidates, 4)) @ factors
        self.offset = offset * rng.normal(size=n_candidates)
        vectors = self.without_bias() * np.exp(self.bias)
        targets = np.stack([precision(task) for task in self.tasks])
        trivial = self.tasks[0].prior_precision
        self.truth = np.stack([distances_to(v, targets, trivial, 0.15) for v in vectors], 1) + self.offset
        noisy = self.truth + noise * rng.normal(size=self.truth.shape)
        self.errors = np.clip(0.3 + 0.5 * (noisy - noisy.mean()), 0, 1)

    def fit(self, **settings):
        return Model2Vec.fit(
            self.tasks, self.errors, **{"candidates": self.candidates, "sources": self.sources, **settings}
        )

    def leave_one_out(self, **settings):
        return Model2Vec.leave_one_out(
            self.tasks, self.errors, **{"candidates": self.candidates, "sources": self.sources, **settings}
        )

    def without_bias(self):
        """Precisions of the sources, ``(n_candidates, n_filters)``."""
        return np.stack([precision(source) for source in self.sources.values()])

    def plain(self):
        """Relative distances, ``(n_tasks, n_candidates)``."""
        return np.array(
            [[distance(s, t, name="relative") for s in self.sources.values()] for t in self.tasks]
        )

    def regret(self, distances):
        """Mean error of the nearest candidate less that of the best."""
        picked = np.take_along_axis(self.errors, distances.argmin(axis=1)[:, None], axis=1)[:, 0]
        return float((picked - self.errors.min(axis=1)).mean())


def distances(model, tasks):
    return np.stack([model.distances(task) for task in tasks])


@pytest.fixture(scope="module")
def biased():
    """Candidates that sit elsewhere than their sources say."""
    return Pool(bias=0.3, offset=0.02)


def test_without_evidence_it_is_the_relative_distance():
    """An infinite penalty learns nothing, however clear the errors."""
    pool = Pool(bias=1.0)

    model = pool.fit(strength=float("inf"), temperature=0.1)

    np.testing.assert_allclose(distances(model, pool.tasks), pool.plain(), rtol=1e-12, atol=1e-15)
    stiff = distances(pool.fit(strength=1e9, temperature=0.1), pool.tasks)
    np.testing.assert_allclose(stiff, pool.plain(), atol=1e-8)


@pytest.mark.parametrize("family", ["fisher", "variational"])
def test_how_large_an_embedding_is_teaches_nothing(family):
    """That hangs on how sure its head is: the same errors on embeddings of other sizes are the same fit."""
    space = make_space(SIZES, beta=1e-6, family=family)
    tasks, sources = (
        [make_embedding(seed=k, n_filters=60, space=space, prior=[1, 2, 3]) for k in seeds]
        for seeds in (range(8), range(10, 14))
    )
    errors = np.random.default_rng(0).uniform(0.1, 0.5, (8, 4))
    names = list("abcd")

    def larger(embeddings, times):
        return [replace(e, fisher=e.fisher * np.float32(times**k)) for k, e in enumerate(embeddings)]

    fits = [
        Model2Vec.fit(t, errors, candidates=names, sources=dict(zip(names, s, strict=True)), strength=0.03)
        for t, s in (
            (tasks, sources),
            (larger(tasks, 8.0), larger(sources, 0.125)),
        )  # powers of 2: no rounding
    ]

    np.testing.assert_allclose(fits[1].vectors, fits[0].vectors, rtol=1e-9)
    np.testing.assert_allclose(distances(fits[1], larger(tasks, 2.0)), distances(fits[0], tasks), atol=1e-9)
    assert np.std(np.log(fits[0].vectors) - np.log(precisions(sources))) > 1e-3


@pytest.mark.parametrize("family", ["fisher", "variational"])
def test_the_precisions_are_what_the_relative_distance_compares(family):
    """The asymmetric distance between them, by another implementation; a vector of zeros stays one."""
    space = make_space(SIZES, beta=1e-6, family=family)
    source, *targets = (make_embedding(seed=k, n_filters=60, space=space, prior=[1, 2, 3]) for k in range(9))
    nothing = make_embedding(np.zeros(60), space=space, prior=[1, 2, 3])
    targets += [nothing]

    rows = precisions(targets)

    trivial = source.prior_precision
    for one in (source, nothing):
        vector = precisions([one])[0]
        expected = [distance(one, target, name="relative", alpha=0.3) for target in targets]
        np.testing.assert_allclose(distances_to(vector, rows, trivial, 0.3), expected, rtol=1e-11, atol=1e-15)
        found, slopes = distances_and_slopes(vector, rows, trivial, 0.3)
        np.testing.assert_allclose(found, expected, rtol=1e-11, atol=1e-15)
        assert np.isfinite(slopes).all()
    np.testing.assert_array_equal(rows[-1], nothing.robust)


@pytest.mark.parametrize("family", ["fisher", "variational"])
def test_the_geometry_is_that_of_distance(family):
    """Another implementation of one formula; in `variational` the vectors are precisions already."""
    space = make_space(SIZES, beta=1e-6, family=family)
    source, *targets = (make_embedding(seed=k, n_filters=60, space=space, prior=[1, 2, 3]) for k in range(9))

    found = distances_to(source.robust, np.stack([t.robust for t in targets]), source.prior_precision, 0.3)

    np.testing.assert_allclose(
        found, [asymmetric_distance(source, t, alpha=0.3) for t in targets], rtol=1e-12
    )


def test_slopes_are_those_of_finite_differences():
    """By every entry's logarithm, the complexity term included."""
    rng = np.random.default_rng(0)
    vector, trivial = np.exp(rng.normal(size=12)), np.exp(rng.normal(size=12))
    targets = np.exp(rng.normal(size=(5, 12)))

    plain, slopes = distances_and_slopes(vector, targets, trivial, 0.15)

    steps = 1e-5 * np.eye(12)
    ahead, behind = (
        np.stack([distances_to(vector * np.exp(sign * step), targets, trivial, 0.15) for step in steps], 1)
        for sign in (1, -1)
    )
    np.testing.assert_allclose(slopes, (ahead - behind) / 2e-5, atol=1e-9)
    np.testing.assert_allclose(plain, distances_to(vector, targets, trivial, 0.15), rtol=1e-13)


def test_filters_of_no_precision_count_as_equal():
    """0/0 must not become NaN: a variational vector may hold zeros."""
    vector, target = np.array([0.0, 1.0]), np.array([[0.0, 1.0]])

    found, slopes = distances_and_slopes(vector, target, np.array([1.0, 1.0]), 0.0)

    np.testing.assert_allclose(found, [0.0], atol=1e-15)
    assert np.isfinite(slopes).all()


@pytest.mark.parametrize("bias", ["filter", "layer", "offset"])
def test_the_solution_is_a_minimum(biased, bias, monkeypatch):
    """Of the loss itself, by finite differences along random directions; not only of its straight form."""
    monkeypatch.setattr("t2v_hub.model2vec.learning._TOLERANCE", 1e-12)
    monkeypatch.setattr("t2v_hub.model2vec.learning._ROUNDS", 100)
    sources = list(biased.sources.values())
    learning = learning_from(
        biased.tasks, biased.errors, sources, bias=bias, alpha=0.15, target_temperature=0.03
    )
    offsets, biases = learning.solve(0.05, 0.03)
    rng = np.random.default_rng(0)

    least = learning.loss(offsets, biases, 0.05, 0.03)
    for _ in range(10):
        a, b = rng.normal(size=offsets.shape), rng.normal(size=biases.shape)
        ahead, behind = (learning.loss(offsets + h * a, biases + h * b, 0.05, 0.03) for h in (1e-3, -1e-3))
        assert abs(ahead - behind) / 2e-3 < 2e-3
        assert min(ahead, behind) > least
    assert least < 0.95 * learning.loss(np.zeros_like(offsets), np.zeros_like(biases), 0.05, 0.03)


def test_planted_biases_are_recovered():
    """From 40 tasks, for 20 that the fit has not seen: distances, and so the vectors behind them."""
    pool = Pool(n_tasks=60, bias=0.3, offset=0.02)
    seen, new = slice(0, 40), slice(40, 60)

    model = Model2Vec.fit(
        pool.tasks[seen],
        pool.errors[seen],
        candidates=pool.candidates,
        sources=pool.sources,
        target_temperature=0.1,  # at 0.03, candidates that are far behind teach little
    )

    def gap(predicted):
        difference = predicted - pool.truth[new]
        return float(np.std(difference - difference.mean(axis=1, keepdims=True)))

    found = np.log(model.vectors) - np.log(pool.without_bias())
    assert gap(distances(model, pool.tasks[new])) < 0.2 * gap(pool.plain()[new])
    assert np.corrcoef(pool.bias.ravel(), found.ravel())[0, 1] > 0.8


def test_leaving_out_is_honest_and_still_wins(biased):
    """On left-out tasks the learned distances select better than plain ones and than any constant."""
    predicted = biased.leave_one_out(groups=[str(t // 2) for t in range(24)])

    constant = min(float((row - biased.errors.min(axis=1)).mean()) for row in biased.errors.T)
    assert biased.regret(predicted) < 0.5 * min(biased.regret(biased.plain()), constant)


def test_a_left_out_task_is_not_seen(biased):
    """Its errors, poisoned, must not move its own prediction by a bit; nor those of its group."""
    settings = {"groups": [str(t // 4) for t in range(24)]}
    clean = biased.leave_one_out(**settings)
    poisoned = Pool(bias=0.3, offset=0.02)
    poisoned.errors[4:8] = 1 - poisoned.errors[4:8]

    predicted = poisoned.leave_one_out(**settings)

    np.testing.assert_array_equal(predicted[4:8], clean[4:8])
    assert (predicted[:4] != clean[:4]).any()


def test_noise_is_not_learned():
    """Where errors hang on nothing, cross-validation must prefer to learn (almost) nothing."""
    pool = Pool()
    rng = np.random.default_rng(3)
    pool.errors = np.clip(0.4 + 0.1 * rng.normal(size=pool.errors.shape), 0, 1)

    model = pool.fit()

    assert model.strength >= 0.1
    assert max(choice.excess for choice in model.tried) > model.tried[0].excess


def test_right_distances_are_left_alone():
    """Where the relative distance already says it all, learning must not spoil it."""
    pool = Pool(noise=0.01)

    learned = pool.regret(pool.leave_one_out(groups=[str(t // 4) for t in range(24)]))
    plain = pool.regret(pool.plain())

    assert learned < plain + 0.005


def test_it_is_deterministic(biased):
    first, second = biased.fit(), biased.fit()

    np.testing.assert_array_equal(first.vectors, second.vectors)
    np.testing.assert_array_equal(first.offsets, second.offsets)
    assert first.tried == second.tried


def test_offsets_alone_are_the_prior():
    """With ``offset``, all tasks' distances move alike, by what the candidate is worth on average."""
    pool = Pool(offset=0.1)

    model = pool.fit(bias="offset")

    moved = distances(model, pool.tasks) - pool.plain()
    np.testing.assert_allclose(moved, np.broadcast_to(moved[0], moved.shape), atol=1e-12)
    assert np.corrcoef(moved[0], pool.offset)[0, 1] > 0.95
    assert moved[0].sum() == pytest.approx(0.0, abs=1e-9)


def test_a_layer_s_filters_move_together(biased):
    model = biased.fit(bias="layer", strength=0.01, temperature=0.05)

    bias = np.log(model.vectors) - np.log(biased.without_bias())

    for part in np.split(bias, np.cumsum(SIZES)[:-1], axis=1):
        np.testing.assert_allclose(part, np.broadcast_to(part[:, :1], part.shape), atol=1e-12)
    assert np.ptp(bias[0]) > 1e-3


def test_a_new_candidate_needs_no_refit(biased):
    """It is as far as its plain distance says, on the others' scale; without an embedding, nobody knows."""
    model = biased.fit()
    new = make_embedding(seed=77, n_filters=60, space=SPACE, prior=np.full(3, 1e-3))
    task = biased.tasks[3]

    found = model.distances(task, {"new": new, "model2": None, "blank": None})

    assert found[0] == distance(new, task, name="relative")
    assert found[1] == model.distances(task)[2]
    assert np.isnan(found[2])
    # The others' distances moved against each other, not as a whole.
    assert distances(model, biased.tasks).mean() == pytest.approx(biased.plain().mean())


def test_unknown_sources_start_as_the_average():
    """Far from everything, as the trivial embedding is, would be a judgement nobody made."""
    pool = Pool()
    sources = {**pool.sources, "model1": None}

    model = pool.fit(sources=sources, strength=float("inf"), temperature=0.1)

    found = distances(model, pool.tasks)
    known = [0, 2, 3, 4, 5]
    assert found[:, 1].mean() == pytest.approx(found[:, known].mean())
    np.testing.assert_allclose(found[:, known], pool.plain()[:, known], rtol=1e-12)


def test_without_any_source_errors_still_teach(biased):
    """The kit's checkpoints: no training data is known, so the bias is all there is."""
    predicted = biased.leave_one_out(sources={}, groups=[str(t // 2) for t in range(24)])

    constant = min(float((row - biased.errors.min(axis=1)).mean()) for row in biased.errors.T)
    assert biased.regret(predicted) < 0.7 * constant


def test_gaps_in_the_errors_are_no_errors(biased):
    """What was not measured must neither count nor be predicted from: any number there is as good."""
    holes = Pool(bias=0.3, offset=0.02)
    rng = np.random.default_rng(0)
    holes.errors[rng.random(holes.errors.shape) < 0.4] = np.nan
    holes.errors[5] = np.nan
    holes.errors[6, 1:] = np.nan  # one candidate says nothing about the others

    model = holes.fit()
    kept = [t for t in range(24) if t not in (5, 6)]
    without = Model2Vec.fit(
        [holes.tasks[t] for t in kept],
        holes.errors[kept],
        candidates=holes.candidates,
        sources=holes.sources,
    )

    np.testing.assert_array_equal(model.vectors, without.vectors)
    assert np.isfinite(distances(model, holes.tasks)).all()
    assert biased.regret(distances(model, biased.tasks)) < 0.5 * biased.regret(biased.plain())


def test_a_candidate_that_was_never_measured_stays_plain(biased):
    pool = Pool(bias=0.3, offset=0.02)
    pool.errors[:, 4] = np.nan

    found = distances(pool.fit(), pool.tasks)

    np.testing.assert_allclose(found[:, 4], pool.plain()[:, 4], atol=1e-9)


def test_it_saves_and_loads_to_the_bit(biased, tmp_path):
    model = biased.fit()

    path = model.save(tmp_path / "learned.safetensors")
    loaded = Model2Vec.load(path)

    np.testing.assert_array_equal(distances(loaded, biased.tasks), distances(model, biased.tasks))
    assert loaded.tried == model.tried
    assert (loaded.space, loaded.candidates, loaded.bias) == (model.space, model.candidates, model.bias)
    assert loaded.n_tasks == model.n_tasks == len(biased.tasks)
    assert loaded.save(tmp_path / "again.safetensors").read_bytes() == path.read_bytes()
    given = biased.fit(strength=float("inf"), temperature=0.1)
    assert Model2Vec.load(given.save(tmp_path / "given.safetensors")).strength == float("inf")


def changed(path, change):
    """The file with its record, as a dictionary, changed and its digest left as it was."""
    from safetensors import safe_open

    with safe_open(path, framework="numpy") as file:
        described = json.loads(file.metadata()["model2vec"])
    tensors = load_file(path)
    change(described, tensors)
    save_file(tensors, path, metadata={"model2vec": json.dumps(described)})


@pytest.mark.parametrize(
    ("n_tasks", "refusal"),
    [(7, None), (None, None), (-1, "must be a whole number >= 0"), (2.5, "number"), (True, "number")],
)
def test_the_number_of_tasks_may_be_absent_but_not_wrong(biased, tmp_path, n_tasks, refusal):
    """Files of older versions do not have it, and others may have written this one."""
    path = biased.fit(strength=1.0, temperature=0.1).save(tmp_path / "fit.safetensors")

    def rewritten(tensors, record):
        record.pop("n_tasks")
        return write(path, tensors, record if n_tasks is None else {**record, "n_tasks": n_tasks})

    read(path, rewritten)

    if refusal is None:
        assert Model2Vec.load(path).n_tasks == (n_tasks or 0)
    else:
        with pytest.raises(EmbeddingFileError, match=f"n_tasks .*{refusal}"):
            Model2Vec.load(path)


@pytest.mark.parametrize(
    ("learned_on", "words"),
    [
        (
            None,
            "learned on embeddings as they are; distances are now .* to one mean, .*must be learned again",
        ),
        ({"distance": "relative", "level": 1e-3}, r"learned on \{'distance': 'relative', 'level': 0\.001\}"),
        ("x" * 1000, "learned on 'x{79}; distances"),
    ],
)
def test_what_was_learned_on_other_vectors_is_refused(biased, tmp_path, learned_on, words):
    """Biases of embeddings as large as they are would be put on others, and nobody would see it."""
    path = biased.fit(strength=1.0, temperature=0.1).save(tmp_path / "fit.safetensors")

    def rewritten(tensors, record):
        kept = {key: value for key, value in record.items() if key != "learned_on"}
        return write(path, tensors, kept if learned_on is None else {**kept, "learned_on": learned_on})

    read(path, rewritten)

    with pytest.raises(EmbeddingFileError, match=f"{words}.*Make it again with Model2Vec.fit"):
        Model2Vec.load(path)


def test_a_damaged_file_is_refused(biased, tmp_path):
    good = biased.fit(strength=1.0, temperature=0.1).save(tmp_path / "good.safetensors").read_bytes()
    path = tmp_path / "bad.safetensors"

    def refused(match, change=None, content=good):
        path.write_bytes(content)
        if change is not None:
            changed(path, change)
        with pytest.raises(EmbeddingFileError, match=match):
            Model2Vec.load(path)

    refused("no whole safetensors", content=good[:-8])
    refused("no whole safetensors", content=b"")
    refused("does not match its digest", lambda d, t: t.update(offsets=t["offsets"] + 1))
    refused(
        "does not match its digest", lambda d, t: d.update(record=d["record"].replace("model1", "model9"))
    )
    refused("its format is", lambda d, t: d.update(format="t2v-model2vec/9"))
    refused("malformed", lambda d, t: d.pop("digest"))
    save_file({"x": np.zeros(1)}, path)
    with pytest.raises(EmbeddingFileError, match="holds other tensors"):
        Model2Vec.load(path)
    with pytest.raises(EmbeddingFileError, match="There is no file"):
        Model2Vec.load(tmp_path / "absent.safetensors")


def test_another_space_is_refused(biased):
    """Numbers of other probes look alike; they must never be mixed."""
    other = make_embedding(seed=1, n_filters=60, space=make_space(SIZES, beta=1e-5))
    model = biased.fit(strength=1.0, temperature=0.1)

    with pytest.raises(EmbeddingMismatchError, match="beta"):
        model.distances(other)
    with pytest.raises(EmbeddingMismatchError, match="beta"):
        model.distances(biased.tasks[0], {"new": other})
    with pytest.raises(EmbeddingMismatchError, match="beta"):
        biased.fit(sources={"model0": other})
    with pytest.raises(EmbeddingMismatchError, match="beta"):
        Model2Vec.fit([biased.tasks[0], other], biased.errors[:2], candidates=biased.candidates, sources={})


@pytest.mark.parametrize(
    ("settings", "match"),
    [
        ({"bias": "wide"}, "There is no bias 'wide'"),
        ({"alpha": -1.0}, "alpha must be"),
        ({"temperature": 0.0}, "temperature must be"),
        ({"target_temperature": float("nan")}, "target_temperature must be"),
        ({"strength": 0.0}, "strength must be > 0"),
        ({"strength": float("nan")}, "strength must be > 0"),
        ({"candidates": ["a", "b"]}, "one column|a column per candidate"),
        ({"candidates": ["model0"] * 6, "sources": {}}, "given twice: model0"),
        ({"sources": {"stranger": None}}, "no column of errors: stranger"),
        ({"groups": ["a"]}, "1 names for 24 tasks"),
        ({"groups": ["a"] * 24}, "at least 3 groups"),
    ],
)
def test_unusable_settings_are_refused(biased, settings, match):
    with pytest.raises(SettingsError, match=match):
        biased.fit(**settings)


def test_unusable_errors_are_refused(biased):
    pool = Pool()
    for value, match in ((15.0, "per cents by 100"), (-0.1, "between 0 and 1"), (np.inf, "between 0 and 1")):
        pool.errors[0, 0] = value
        with pytest.raises(SettingsError, match=match):
            pool.fit()
    pool.errors[:, 1:] = np.nan
    pool.errors[0, 0] = 0.5
    with pytest.raises(SettingsError, match="nothing to learn from"):
        pool.fit()
    with pytest.raises(SettingsError, match="nothing to learn from"):
        Model2Vec.fit([], np.zeros((0, 1)), candidates=["a"], sources={})


def test_arguments_are_left_as_they_were(biased):
    errors, candidates = biased.errors.copy(), list(biased.candidates)

    biased.fit(strength=0.1, temperature=0.1)

    np.testing.assert_array_equal(biased.errors, errors)
    assert biased.candidates == candidates


def test_it_needs_no_torch():
    """To rank by learned distances must not cost the seconds that importing torch takes."""
    code = "import sys; from t2v_hub.model2vec import Model2Vec; assert 'torch' not in sys.modules"

    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
