"""NSGA-II against brute force on hundreds of random problems, and its mechanics one by one."""

import numpy as np
import pytest
from foundry_sim.search.genetic import Genomes, Problem, Scores, crowding, enumerate_all, evolve, fronts
from hypothesis import given, settings
from hypothesis import strategies as st


def random_problem(seed: int, tightness: float) -> Problem:
    """Costs and capacities per value of each gene, with pairwise interactions; load must be carried, and a latency-like
    limit kept: the shape of a fleet, with random numbers."""
    random = np.random.default_rng(seed)
    genes = int(random.integers(3, 7))
    sizes = tuple(int(size) for size in random.integers(2, 9, genes))
    cost = [np.concatenate([[0.0], random.uniform(1, 20, size - 1)]) for size in sizes]
    carry = [values * random.uniform(0.3, 1.2, len(values)) for values in cost]
    delay = [random.uniform(0, 5, size) for size in sizes]
    mixing = random.uniform(0, 2, (genes, genes))
    most = sum(values.max() for values in carry)
    calmest = sum(values.min() for values in delay)

    def evaluate(genomes: Genomes) -> Scores:
        used = (genomes > 0).astype(float)
        total = sum(cost[g][genomes[:, g]] for g in range(genes))
        carried = sum(carry[g][genomes[:, g]] for g in range(genes))
        interaction = ((used @ mixing) * used).sum(axis=1)
        late = sum(delay[g][genomes[:, g]] for g in range(genes)) + interaction / 10
        total = total + interaction
        short = np.maximum(0.0, tightness * most - carried)
        over = np.maximum(0.0, late - calmest - 8.0 * (1.2 - tightness) - 4.0)
        return Scores(np.stack([total, late], axis=1), short + over)

    return Problem(sizes, evaluate)


@pytest.mark.parametrize("seed", range(300))
def test_within_one_percent_of_brute_force(seed: int) -> None:
    problem = random_problem(seed, tightness=(0.2, 0.5, 0.8)[seed % 3])
    exact = enumerate_all(problem)
    found = evolve(problem, population=32, generations=12, seed=seed)
    assert found.feasible == exact.feasible
    if exact.feasible:
        cheapest = exact.scores.objectives[:, 0].min()
        assert found.scores.objectives[:, 0].min() <= cheapest * 1.01
        assert (found.scores.violation <= 0).all()
    else:
        assert found.scores.violation.min() <= exact.scores.violation.min() * 1.05 + 1e-9
    if found.bred:
        assert found.mated > 0.05 * found.bred, "crossover must produce children of both parents"


class Spy:
    """Remembers whether any genome that was evaluated was feasible."""

    def __init__(self, problem: Problem) -> None:
        self.inner, self.feasible_seen = problem, False

    def evaluate(self, genomes: Genomes) -> Scores:
        scores = self.inner.evaluate(genomes)
        self.feasible_seen |= bool((scores.violation <= 0).any())
        return scores


@settings(max_examples=120, deadline=None)
@given(seed=st.integers(0, 10**6), tightness=st.floats(0.1, 1.0), generations=st.integers(0, 6))
def test_never_infeasible_when_a_feasible_one_was_evaluated(seed: int, tightness: float, generations: int) -> None:
    spy = Spy(random_problem(seed, tightness))
    found = evolve(Problem(spy.inner.sizes, spy.evaluate), population=12, generations=generations, seed=seed)
    assert found.feasible == spy.feasible_seen
    # A matrix product rounds by the number of its rows, so that one genome alone differs in the last bit.
    again = spy.inner.evaluate(found.genomes).violation
    assert again.tolist() == pytest.approx(found.scores.violation.tolist(), rel=1e-12, abs=1e-12)


def test_the_same_seed_gives_the_same_answer() -> None:
    problem = random_problem(7, 0.5)
    first, again = evolve(problem, seed=3), evolve(problem, seed=3)
    assert (first.genomes == again.genomes).all()
    assert first.evaluations == again.evaluations


def test_children_mate_without_mutation_of_their_own() -> None:
    """With two distinct parents everywhere, crossover alone must produce genomes that are neither."""
    seen: set[tuple[int, ...]] = set()

    def evaluate(genomes: Genomes) -> Scores:
        seen.update(map(tuple, genomes.tolist()))
        ones = genomes.sum(axis=1).astype(float)
        return Scores(np.stack([ones, -ones], axis=1), np.zeros(len(genomes)))

    found = evolve(Problem((2,) * 12, evaluate), population=40, generations=10, seed=1)
    assert found.mated > found.bred // 2
    assert len(seen) > 200


def test_fronts_put_feasible_first_then_less_violation() -> None:
    scores = Scores(
        np.array([[1.0, 5.0], [2.0, 2.0], [3.0, 3.0], [0.0, 0.0], [0.0, 0.0]]), np.array([0, 0, 0, 2.0, 1.0])
    )
    assert fronts(scores).tolist() == [0, 0, 1, 3, 2]


def test_crowding_keeps_the_ends() -> None:
    objectives = np.array([[0.0, 4.0], [1.0, 2.0], [2.0, 1.0], [4.0, 0.0]])
    distance = crowding(objectives, np.zeros(4, np.int64))
    assert np.isinf(distance[[0, 3]]).all()
    assert distance[1] == pytest.approx(2 / 4 + 3 / 4)


def test_one_genome_spaces_work() -> None:
    problem = Problem((1, 1), lambda genomes: Scores(np.ones((len(genomes), 2)), np.zeros(len(genomes))))
    assert evolve(problem, population=4, generations=2).genomes.tolist() == [[0, 0]]
