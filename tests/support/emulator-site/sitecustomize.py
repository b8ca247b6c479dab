"""Python runs this when the emulator starts, before anything else.

It makes the emulator answer from other places than its own, which take a tenth of the time: a query of a small table
takes milliseconds then. What it answers stays the same, except that there is no time travel, that jobs are forgotten
when it ends, and that a table's number of rows is always exact.
"""

import functools
import json
import sys

# DuckDB looks for pandas each time that rows are fetched. The emulator has none, and the search takes longer than most
# queries. This entry ends it at once.
sys.modules["pandas"] = None

import duckdb
import uvicorn
from local_bigquery.engine import database, sessions
from local_bigquery.jobs import store
from local_bigquery.models import Job

# A line for each request, which nobody reads.
uvicorn.run = functools.partial(uvicorn.run, access_log=False)


def attach(connection, project_id):
    """Keeps a project's tables in DuckDB's own format; each look into a DuckLake takes many queries."""
    path = database.settings.data_dir / f"{project_id}.project"
    connection.execute(f"ATTACH IF NOT EXISTS '{path}' AS {database.quote(project_id)}")
    database._attached.add(project_id)


database._attach = attach
database.projects = lambda: sorted(database._attached)

# DuckDB's lists of tables and columns are made from all that there are, and each query leaves one more with its
# result. So what is asked about a single table is asked of this table. Cases of letters matter to BigQuery alone; that
# is why a name is looked up in the list once.
all_objects = database.objects
known = set()
# No two results have names that differ in cases alone.
RESULTS = "_results"


def objects(project_id, dataset_id, table_id=None):
    if table_id is None:
        return all_objects(project_id, dataset_id)
    table = database.quote(project_id, dataset_id, table_id)
    with database.cursor() as cursor:
        try:
            cursor.sql(f"SELECT rowid FROM {table} LIMIT 0")
            kind, rows = "TABLE", cursor.execute(f"SELECT count(*) FROM {table}").fetchone()[0]
        except duckdb.CatalogException:
            return []
        except duckdb.BinderException:
            kind, rows = "VIEW", 0
    name = (project_id, dataset_id, table_id)
    if dataset_id != RESULTS and name not in known:
        if not all_objects(*name):
            return []
        known.add(name)
    return [(table_id, kind, rows)]


database.objects = objects

OF_ALL_COLUMNS = "FROM duckdb_columns() WHERE database_name = ? AND schema_name = ? AND table_name = ? AND "
OF_ONE_TABLE = "FROM pragma_table_info(?) WHERE "
IN_ONE_TABLE = {
    f"SELECT column_name {OF_ALL_COLUMNS}NOT is_nullable": f'SELECT name {OF_ONE_TABLE}"notnull"',
    f"SELECT 1 {OF_ALL_COLUMNS}column_name = ?": f"SELECT 1 {OF_ONE_TABLE}name = ?",
}
fetch_anything = database.fetch


def fetch(sql, params=None):
    if sql not in IN_ONE_TABLE:
        return fetch_anything(sql, params)
    try:
        return fetch_anything(IN_ONE_TABLE[sql], [database.quote(*params[:3]), *params[3:]])
    except duckdb.CatalogException:
        return []


database.fetch = fetch

TEMPORARY_TABLES = "SELECT table_name FROM duckdb_tables() WHERE temporary"
NONE = "SELECT NULL::VARCHAR AS table_name WHERE FALSE"
any_sql = duckdb.DuckDBPyConnection.sql


def sql(self, query, *args, **options):
    """A new connection has no temporary tables, only that of a session may have some."""
    is_session = any(session.cursor is self for session in sessions._sessions.values())
    return any_sql(self, NONE if query == TEMPORARY_TABLES and not is_session else query, *args, **options)


duckdb.DuckDBPyConnection.sql = sql

# Each job is stored three times.
jobs = {}


def save_job(job):
    jobs[(job.jobReference.projectId, job.jobReference.jobId)] = json.dumps(job.dump())
    return job


def load_job(project_id, job_id):
    text = jobs.get((project_id, job_id))
    return Job.model_validate_json(text) if text else None


def list_jobs(project_id, states=None, parent_job_id=None, min_creation_time=None, max_creation_time=None):
    created = lambda job: int(job.statistics.creationTime)
    found = [load_job(*key) for key in list(jobs) if key[0] == project_id]
    listed = [
        job
        for job in found
        if job.statistics.parentJobId == parent_job_id
        and (states is None or job.status.state in states)
        and (min_creation_time is None or created(job) >= min_creation_time)
        and (max_creation_time is None or created(job) <= max_creation_time)
    ]
    return sorted(listed, key=lambda job: (-created(job), job.jobReference.jobId))


def delete_job(project_id, job_id):
    children = [job.jobReference.jobId for job in list_jobs(project_id, parent_job_id=job_id)]
    for one in [job_id, *children]:
        jobs.pop((project_id, one), None)


store.save, store.load, store.list_, store.delete = save_job, load_job, list_jobs, delete_job
