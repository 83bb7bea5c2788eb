"""Simple models on top of frozen vectors, and their scores over folds.

They see standardized vectors, but for sparse counts, which standardizing would spoil: a rare bit would outweigh all.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import Ridge, RidgeClassifier
from sklearn.metrics import r2_score, roc_auc_score, root_mean_squared_error
from sklearn.model_selection import GridSearchCV
from sklearn.neighbors import KNeighborsClassifier, KNeighborsRegressor
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.svm import SVC, SVR

from bench.quality.table import Table, Task

C = 5.0
"""Of the support vector machine, as in CDDD's own test (Winter et al., 2019)."""

NEIGHBORS = 5
# The penalty is chosen among these within the training folds.
_ALPHAS = {"alpha": [1e1, 1e2, 1e3, 1e4, 1e5]}
_INNER_FOLDS = 3


def _heads(task: Task) -> dict[str, Any]:
    nearest = {"n_neighbors": NEIGHBORS, "weights": "distance"}
    if task == "regression":
        ridge = GridSearchCV(Ridge(), _ALPHAS, cv=_INNER_FOLDS)
        return {"ridge": ridge, "SVM": SVR(C=C), "kNN": KNeighborsRegressor(**nearest)}
    ridge = GridSearchCV(RidgeClassifier(), _ALPHAS, cv=_INNER_FOLDS, scoring="roc_auc")
    return {"ridge": ridge, "SVM": SVC(C=C), "kNN": KNeighborsClassifier(**nearest)}


HEADS = ("ridge", "SVM", "kNN")


def regressor(head: str) -> Any:
    """A fresh regression by its name."""
    return _heads("regression")[head]


@dataclass(frozen=True)
class Result:
    """Scores of one kind of vectors on one table with one head.

    Attributes:
        metrics: Name of a metric -> its value in each fold: r2 and RMSE for regression, AUC for classification.
    """

    vectors: str
    dimension: int
    table: str
    task: Task
    head: str
    metrics: dict[str, list[float]]


def score(
    vectors: str, values: NDArray[np.float32], table: Table, head: str, seed: int, standardize: bool = True
) -> Result:
    """Train `head` on all folds but one and test it on that one, for each fold."""
    metrics: dict[str, list[float]] = {"AUC": []} if table.task == "classification" else {"r2": [], "RMSE": []}
    for train, test in table.splits(seed):
        scale = StandardScaler() if standardize else "passthrough"
        model = make_pipeline(scale, _heads(table.task)[head])
        model.fit(values[train], table.target[train])
        wanted = table.target[test]
        if table.task == "classification":
            metrics["AUC"].append(float(roc_auc_score(wanted, _decision(model, values[test]))))
        else:
            predicted = model.predict(values[test])
            metrics["r2"].append(float(r2_score(wanted, predicted)))
            metrics["RMSE"].append(float(root_mean_squared_error(wanted, predicted)))
    return Result(vectors, values.shape[1], table.name, table.task, head, metrics)


def _decision(model: Any, values: NDArray[np.float32]) -> NDArray[np.float64]:
    """A number that rises with the probability of class one."""
    if hasattr(model, "decision_function"):
        decision: NDArray[np.float64] = model.decision_function(values)
        return decision
    probability: NDArray[np.float64] = model.predict_proba(values)[:, 1]
    return probability
