from swin_dense.cli.visualize import main

if __name__ == "__main__":
    raise SystemExit(main())
