"""The Airflow part: the only subpackage that imports Airflow."""
