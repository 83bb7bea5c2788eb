"""The dashboard, by Grafana's own builders; the file that Grafana reads is written from it."""

from grafana_foundation_sdk.builders import dashboard as builders
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as models

from deploy.monitoring.alerts import RUNBOOKS
from deploy.monitoring.panels import DATA
from deploy.monitoring.queries import ENCODERS
from deploy.monitoring.rows import calls, engine, servers

ROWS = {
    "Objectives": calls.objectives,
    "Latency by stage": calls.latency,
    "Saturation and capacity": engine.saturation,
    "Batching": engine.batching,
    "Encoders and versions": servers.encoders,
    "Errors and drift": calls.errors,
    "Tenants": calls.tenants,
    "Front-ends and processes": servers.front_ends,
    "Response cache": engine.cache,
}


def dashboard_file() -> str:
    """deploy/grafana/dashboards/birnn.json."""
    dashboard = (
        builders.Dashboard("birnn-serving")
        .uid("birnn")
        .description("Bidirectional recurrent encoders: objectives, latency, capacity, encoders, processes.")
        .tags(["birnn"])
        .readonly()
        .refresh("10s")
        .time("now-30m", "now")
        .timezone("browser")
        .tooltip(models.DashboardCursorSync.CROSSHAIR)
        .link(builders.DashboardLink("Runbooks").type(models.DashboardLinkType.LINK).url(RUNBOOKS).target_blank(True))
        .with_variable(_data_source())
        .with_variable(_variable("job", "label_values(birnn_server_info, job)"))
        .with_variable(_variable("instance", 'label_values(birnn_server_info{job=~"$job"}, instance)'))
        .with_variable(
            _variable("encoder", 'label_values(birnn_encoder_ready{job=~"$job",instance=~"$instance"}, encoder)')
        )
        .annotation(
            builders.AnnotationQuery()
            .name("Swaps")
            .datasource(DATA)
            .enable(True)
            .icon_color("purple")
            .expr(f"time() - birnn_encoder_loaded_time_seconds{{{ENCODERS}}} < 60")
        )
    )
    for title, panels in ROWS.items():
        dashboard = dashboard.with_row(builders.Row(title))
        for panel in panels():
            dashboard = dashboard.with_panel(panel)
    built = dashboard.build()
    for number, placed in enumerate(built.panels or (), start=1):
        placed.id_val = number
    return JSONEncoder(indent=1, sort_keys=True).encode(built) + "\n"


def _data_source() -> builders.DatasourceVariable:
    default = models.VariableOption(selected=True, text="Prometheus", value="prometheus")
    return builders.DatasourceVariable("datasource").label("Data source").type("prometheus").current(default)


def _variable(name: str, query: str) -> builders.QueryVariable:
    """A choice of some or all."""
    everything = models.VariableOption(selected=True, text=["All"], value=["$__all"])
    return (
        builders.QueryVariable(name)
        .label(name.title())
        .datasource(DATA)
        .query({"query": query, "refId": name})
        .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(models.VariableSort.ALPHABETICAL_ASC)
        .multi(True)
        .include_all(True)
        .all_value(".*")
        .current(everything)
    )
