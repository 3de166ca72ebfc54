"""What a worker does beside its jobs: periodic tasks, all run by `periodic.PeriodicTasks`."""
