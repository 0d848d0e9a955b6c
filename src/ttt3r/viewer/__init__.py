"""Looking at a run: the scene it becomes, the page that shows it, and the server of live views."""
