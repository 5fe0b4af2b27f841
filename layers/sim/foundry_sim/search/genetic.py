"""NSGA-II over integer genomes, vectorised (Deb et al., IEEE TEC 6(2), 2002), for spaces too large to enumerate.

Constraint-domination decides: feasible beats infeasible, less violation beats more, then Pareto rank and crowding. The
best feasible genomes ever evaluated are kept in an archive that breeding cannot lose, and the final ones are polished,
so that no change of a few genes improves the answer.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

Genomes = NDArray[np.int64]
Floats = NDArray[np.float64]
_TOURNAMENT = 2
_ARCHIVE = 64
_POLISH_STARTS = 6
_POLISH_ROUNDS = 8
_TRIPLES_MAX = 84  # all of them up to nine genes
_CHANGES_MAX = 1024


@dataclass(frozen=True, slots=True)
class Scores:
    """Objectives to minimise, shape (n, objectives), and total constraint violation, shape (n,); 0 is feasible."""

    objectives: Floats
    violation: Floats


@dataclass(frozen=True, slots=True)
class Problem:
    """``sizes[i]`` is how many values gene i takes (0 … size − 1); ``evaluate`` scores genomes of shape (n, genes)."""

    sizes: tuple[int, ...]
    evaluate: Callable[[Genomes], Scores]


@dataclass(frozen=True, slots=True)
class Answer:
    """The first front of everything evaluated: feasible genomes if any was feasible, else the least violating one.
    ``mated`` counts children that carry genes of both parents and equal neither."""

    genomes: Genomes
    scores: Scores
    evaluations: int
    mated: int
    bred: int

    @property
    def feasible(self) -> bool:
        return bool(len(self.genomes) and self.scores.violation[0] <= 0.0)

    def best(self, objective: int = 0) -> NDArray[np.int64]:
        """The genome with the lowest value of one objective."""
        return np.asarray(self.genomes[int(np.argmin(self.scores.objectives[:, objective]))])


@dataclass(slots=True)
class _State:
    """What the run carries along: its randomness, the archive and the tallies."""

    random: np.random.Generator
    genomes: Genomes
    scores: Scores
    evaluations: int = 0
    mated: int = 0
    bred: int = 0


def evolve(
    problem: Problem, *, population: int = 96, generations: int = 40, seed: int = 0, crossover_rate: float = 0.9
) -> Answer:
    """Search the problem; the same seed gives the same answer."""
    random = np.random.default_rng(seed)
    genomes = _first_population(problem.sizes, population, random)
    scores = problem.evaluate(genomes)
    state = _State(random, genomes, scores, evaluations=len(genomes))
    _remember(state, genomes, scores)
    for _ in range(generations):
        children = _breed(problem.sizes, genomes, scores, state, crossover_rate)
        offspring = problem.evaluate(children)
        state.evaluations += len(children)
        _remember(state, children, offspring)
        genomes, scores = _survivors(*_joined(genomes, scores, children, offspring), population)
    _polish(problem, state)
    return _answer(state)


def _first_population(sizes: tuple[int, ...], count: int, random: np.random.Generator) -> Genomes:
    """Uniform samples, and the corners: all genes low, middle and high."""
    limits = np.array(sizes)
    genomes = random.integers(0, limits, size=(count, len(sizes)))
    corners = np.stack([np.zeros_like(limits), limits // 2, limits - 1])
    genomes[: min(3, count)] = corners[: min(3, count)]
    return np.asarray(genomes, np.int64)


def fronts(scores: Scores) -> NDArray[np.int64]:
    """Rank of each row under constraint-domination, 0 for the best; infeasible rows rank behind by violation."""
    count = len(scores.violation)
    rank = np.full(count, -1, np.int64)
    feasible = np.flatnonzero(scores.violation <= 0.0)
    level = _pareto_ranks(scores.objectives[feasible]) if len(feasible) else np.zeros(0, np.int64)
    rank[feasible] = level
    worse = np.flatnonzero(scores.violation > 0.0)
    if len(worse):
        _, order = np.unique(scores.violation[worse], return_inverse=True)
        rank[worse] = order.reshape(-1) + (int(level.max()) + 1 if len(level) else 0)
    return rank


def _pareto_ranks(objectives: Floats) -> NDArray[np.int64]:
    one, other = objectives.T[:, :, None], objectives.T[:, None, :]
    dominates = np.asarray((one <= other).all(axis=0) & (one < other).any(axis=0))
    dominated_by = dominates.sum(axis=0)
    rank = np.full(len(objectives), -1, np.int64)
    level = 0
    while (rank < 0).any():
        current = (rank < 0) & (dominated_by == 0)
        rank[current] = level
        dominated_by = dominated_by - dominates[current].sum(axis=0)
        dominated_by[rank >= 0] = -1
        level += 1
    return rank


def crowding(objectives: Floats, rank: NDArray[np.int64]) -> Floats:
    """Crowding distance within each front; the ends of a front are infinitely far."""
    distance = np.zeros(len(rank))
    for values in objectives.T:
        order = np.lexsort((values, rank))
        level, rising = rank[order], values[order]
        first = np.append(True, level[1:] != level[:-1])
        last = np.append(first[1:], True)
        spread = (rising[last] - rising[first])[np.cumsum(first) - 1]
        inner = np.flatnonzero(~first & ~last & (spread > 0))
        distance[order[inner]] += (rising[inner + 1] - rising[inner - 1]) / spread[inner]
        distance[order[first | last]] = np.inf
    return distance


def _breed(sizes: tuple[int, ...], genomes: Genomes, scores: Scores, state: _State, crossover_rate: float) -> Genomes:
    """Tournament-selected pairs, uniform crossover, then mutation of about one gene per child."""
    random, count, genes = state.random, len(genomes), len(sizes)
    rank = fronts(scores)
    distance = crowding(scores.objectives, rank)
    first, second = (genomes[_tournament(rank, distance, count, random)] for _ in range(2))
    mates = random.random(count) < crossover_rate
    from_second = (random.random((count, genes)) < 0.5) & mates[:, None]
    children = np.where(from_second, second, first)
    differs = (children != first).any(axis=1) & (children != second).any(axis=1)
    state.mated += int(differs.sum())
    state.bred += count
    return _mutated(children, np.array(sizes), random)


def _tournament(
    rank: NDArray[np.int64], distance: Floats, count: int, random: np.random.Generator
) -> NDArray[np.int64]:
    rivals = random.integers(0, len(rank), size=(count, _TOURNAMENT))
    left, right = rivals[:, 0], rivals[:, 1]
    wins = (rank[left] < rank[right]) | ((rank[left] == rank[right]) & (distance[left] >= distance[right]))
    return np.where(wins, left, right)


def _mutated(children: Genomes, limits: NDArray[np.int64], random: np.random.Generator) -> Genomes:
    """Half of the mutations step to a neighbouring value (ordered genes), half draw anew (unordered ones)."""
    chosen = random.random(children.shape) < 1.0 / children.shape[1]
    step = np.clip(children + random.choice((-1, 1), size=children.shape), 0, limits - 1)
    fresh = random.integers(0, limits, size=children.shape)
    changed = np.where(random.random(children.shape) < 0.5, step, fresh)
    return np.asarray(np.where(chosen, changed, children), np.int64)


def _survivors(genomes: Genomes, scores: Scores, count: int) -> tuple[Genomes, Scores]:
    """The best ``count`` by rank and crowding; identical genomes survive once."""
    _, unique = np.unique(genomes, axis=0, return_index=True)
    rank = fronts(_rows(scores, unique))
    distance = crowding(scores.objectives[unique], rank)
    kept = unique[np.lexsort((-distance, rank))[:count]]
    return genomes[kept], _rows(scores, kept)


def _rows(scores: Scores, rows: NDArray[np.intp]) -> Scores:
    return Scores(scores.objectives[rows], scores.violation[rows])


def _joined(genomes: Genomes, scores: Scores, more: Genomes, extra: Scores) -> tuple[Genomes, Scores]:
    return np.concatenate([genomes, more]), Scores(
        np.concatenate([scores.objectives, extra.objectives]), np.concatenate([scores.violation, extra.violation])
    )


def _remember(state: _State, genomes: Genomes, scores: Scores) -> None:
    """Merge into the archive: the first front of what is feasible, or what violates least while nothing is."""
    pool, pooled = _joined(state.genomes, state.scores, genomes, scores)
    feasible = np.flatnonzero(pooled.violation <= 0.0)
    if len(feasible):
        kept = feasible[_non_dominated(pooled.objectives[feasible])]
    else:
        kept = np.argsort(pooled.violation, kind="stable")[:_ARCHIVE]
    kept = kept[np.unique(pool[kept], axis=0, return_index=True)[1]]
    if len(kept) > _ARCHIVE:
        far = crowding(pooled.objectives[kept], np.zeros(len(kept), np.int64))
        kept = kept[np.argsort(-far, kind="stable")[:_ARCHIVE]]
    state.genomes, state.scores = pool[kept], _rows(pooled, kept)


def _polish(problem: Problem, state: _State) -> None:
    """From the archive's best, change up to three genes to whatever is best until nothing improves."""
    for objective in range(state.scores.objectives.shape[1]):
        order = np.lexsort((state.scores.objectives[:, objective], state.scores.violation))
        for start in state.genomes[order[: _POLISH_STARTS if objective == 0 else 1]]:
            _climb(problem, state, start, objective)


def _climb(problem: Problem, state: _State, start: NDArray[np.int64], objective: int) -> None:
    current, key = start, (np.inf, np.inf)
    for _ in range(_POLISH_ROUNDS):
        around = _neighbours(problem.sizes, current, state.random)
        scores = problem.evaluate(around)
        state.evaluations += len(around)
        _remember(state, around, scores)
        least = np.flatnonzero(scores.violation == scores.violation.min())
        best = int(least[np.argmin(scores.objectives[least, objective])])
        found = (float(scores.violation[best]), float(scores.objectives[best, objective]))
        if found >= key:
            return
        current, key = around[best], found


def _neighbours(sizes: tuple[int, ...], genome: NDArray[np.int64], random: np.random.Generator) -> Genomes:
    """Every change of up to three genes, or a sample of a triple's changes where they are too many."""
    triples = list(combinations(range(len(sizes)), min(3, len(sizes))))
    if len(triples) > _TRIPLES_MAX:
        triples = [triples[int(place)] for place in random.choice(len(triples), _TRIPLES_MAX, replace=False)]
    blocks = [genome[None, :]]
    for genes in triples:
        shape = tuple(sizes[gene] for gene in genes)
        count = math.prod(shape)
        codes = np.arange(count) if count <= _CHANGES_MAX else random.integers(0, count, _CHANGES_MAX)
        block = np.repeat(genome[None, :], len(codes), axis=0)
        block[:, genes] = np.stack(np.unravel_index(codes, shape), axis=1)
        blocks.append(block)
    return np.concatenate(blocks)


def _answer(state: _State) -> Answer:
    rank = fronts(state.scores)
    rows = np.flatnonzero(rank == 0)
    return Answer(state.genomes[rows], _rows(state.scores, rows), state.evaluations, state.mated, state.bred)


def enumerate_all(problem: Problem) -> Answer:
    """The exact answer for a space that fits: every genome once."""
    grids = np.meshgrid(*(np.arange(size) for size in problem.sizes), indexing="ij")
    genomes = np.stack([grid.reshape(-1) for grid in grids], axis=1).astype(np.int64)
    scores = problem.evaluate(genomes)
    if (scores.violation <= 0.0).any():
        feasible = np.flatnonzero(scores.violation <= 0.0)
        rows = feasible[_non_dominated(scores.objectives[feasible])]
    else:
        rows = np.flatnonzero(scores.violation == scores.violation.min())[:1]
    return Answer(genomes[rows], _rows(scores, rows), len(genomes), 0, 0)


def _non_dominated(objectives: Floats) -> NDArray[np.intp]:
    """Rows of the first front. Two objectives: one sweep in order of the first; more: against the front so far."""
    order = np.lexsort(objectives.T[::-1])
    if objectives.shape[1] == 2:
        second = objectives[order, 1]
        best = np.concatenate([[np.inf], np.minimum.accumulate(second)[:-1]])
        return np.asarray(order[second < best], np.intp)
    kept: list[int] = []
    for row in order.tolist():
        if not any((objectives[other] <= objectives[row]).all() for other in kept):
            kept.append(row)
    return np.asarray(kept, np.intp)
