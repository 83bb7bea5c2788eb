"""Panels of the dashboard in one style."""

from collections.abc import Mapping, Sequence

from grafana_foundation_sdk.builders import common, prometheus, stat, table, timeseries
from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.builder import Builder
from grafana_foundation_sdk.models import common as options
from grafana_foundation_sdk.models import dashboard as models
from grafana_foundation_sdk.models.prometheus import PromQueryFormat

from deploy.monitoring.queries import Queries

DATA = models.DataSourceRef(type_val="prometheus", uid="$datasource")
# Of the 24 columns: three graphs side by side, and six numbers.
GRAPH, NUMBER = 8, 4

Panels = Sequence[Builder[models.Panel]]
Steps = Mapping[float, str]
"""The color from a value on."""


def graph(
    title: str,
    description: str,
    queries: Queries,
    unit: str = "short",
    *,
    stacked: bool = False,
    most: float | None = None,
) -> timeseries.Panel:
    """Lines over time."""
    panel = (
        timeseries.Panel()
        .title(title)
        .description(description)
        .datasource(DATA)
        .unit(unit)
        .min(0)
        .height(8)
        .span(GRAPH)
        .fill_opacity(10 if not stacked else 30)
        .show_points(options.VisibilityMode.NEVER)
        .tooltip(common.VizTooltipOptions().mode(options.TooltipDisplayMode.MULTI).sort(options.SortOrder.DESCENDING))
        .legend(
            common.VizLegendOptions()
            .display_mode(options.LegendDisplayMode.LIST)
            .placement(options.LegendPlacement.BOTTOM)
            .show_legend(True)
        )
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(options.StackingMode.NORMAL).group("A"))
    if most is not None:
        panel = panel.max(most)
    for target in _targets(queries):
        panel = panel.with_target(target)
    return panel


def number(
    title: str,
    description: str,
    query: str,
    unit: str = "short",
    steps: Steps | None = None,
    *,
    base: str = "blue",
) -> stat.Panel:
    """The value now, over a sketch of how it came about; of the color `base` below all `steps`."""
    [target] = _targets({"": query})
    return (
        stat.Panel()
        .title(title)
        .description(description)
        .datasource(DATA)
        .unit(unit)
        .height(4)
        .span(NUMBER)
        .color_scheme(builders.FieldColor().mode(models.FieldColorModeId.THRESHOLDS))
        .thresholds(_thresholds(base, steps or {}))
        .graph_mode(options.BigValueGraphMode.AREA)
        .reduce_options(common.ReduceDataOptions().calcs(["lastNotNull"]))
        .with_target(target)
    )


def rows_of(title: str, description: str, query: str, columns: Mapping[str, str]) -> table.Panel:
    """A row for each series: the labels `columns`, with their headings."""
    target = _targets({"": query})[0].instant().format(PromQueryFormat.TABLE)
    return (
        table.Panel()
        .title(title)
        .description(description)
        .datasource(DATA)
        .height(8)
        .span(2 * GRAPH)
        .with_target(target)
        .with_transformation(
            models.DataTransformerConfig(
                id_val="organize",
                options={
                    "includeByName": dict.fromkeys(columns, True),
                    "indexByName": {label: place for place, label in enumerate(columns)},
                    "renameByName": dict(columns),
                },
            )
        )
    )


def _targets(queries: Queries) -> list[prometheus.Dataquery]:
    return [
        prometheus.Dataquery().ref_id(chr(ord("A") + place)).datasource(DATA).expr(query).legend_format(legend)
        for place, (legend, query) in enumerate(queries.items())
    ]


def _thresholds(base: str, steps: Steps) -> builders.ThresholdsConfig:
    marks = [models.Threshold(value=None, color=base)]
    marks += [models.Threshold(value=value, color=color) for value, color in steps.items()]
    return builders.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(marks)
