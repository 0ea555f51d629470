from swin_dense.cli.analyze_logs import main

if __name__ == "__main__":
    raise SystemExit(main())
